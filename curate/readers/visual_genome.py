"""Visual Genome: the phrases that describe an image's regions are its captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import MISSING

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import DatasetConfig
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import among, is_image, read_bytes, version_of
from curate.readers.matching.claims import Row
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.run.schema import PATH, UserError, check

IMAGES, REGIONS = "image_data.json", "region_descriptions.json"
FOLDERS = ("VG_100K", "VG_100K_2")

Image = dict[str, Any]


@dataclass
class VisualGenomeConfig(DatasetConfig):
    """Visual Genome's region descriptions beside its images.

    Attributes:
        root: holds image_data.json, region_descriptions.json and the image folders.
        captions_per_image: at most this many phrases, of the largest regions; null takes all.
        min_region_share: of the image's area; smaller regions say little about the image.
    """

    root: str = field(default=MISSING, metadata=PATH)
    captions_per_image: int | None = 5
    min_region_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        most, share = self.captions_per_image, self.min_region_share
        check(most is None or most > 0, "dataset.captions_per_image", most, "null or > 0")
        check(0 <= share <= 1, "dataset.min_region_share", share, "a share, 0 ... 1")


def reads(config: VisualGenomeConfig) -> Reads:
    """The two files, and images: some unpack them into folders of other names."""
    is_list = among(Path(config.root, name) for name in (IMAGES, REGIONS))
    return lambda path: is_list(path) or is_image(path)


@register_reader("visual_genome", VisualGenomeConfig, reads)
def read(config: VisualGenomeConfig) -> Source:
    """Read the list of images; the regions, 5.4 million in a gigabyte, are streamed in each pass.

    Images without regions come last, without captions. The regions of an image that is not in the
    list become a candidate without an image.

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
    locations = _locations(root, images, CountedNotes(notes))
    fixed = tuple(notes)

    def candidates() -> Iterator[Candidate]:
        yield from _candidates(config, root, images, locations, CountedNotes(notes, fixed))

    return Source(candidates, partial(_load_named, root), len(images), notes)


def _load_named(root: Path, location: str) -> bytes:
    if not location:
        raise UnreadableImage(MISSING_FILE)
    return read_bytes(root / location)


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
        raise UserError(f"{path} lists an image id twice; use the published file")
    return images


def _id_of(record: Image) -> int:
    return int(record["image_id"] if "image_id" in record else record["id"])


def _candidates(
    config: VisualGenomeConfig,
    root: Path,
    images: dict[int, Image],
    locations: dict[int, str],
    notes: CountedNotes,
) -> Iterator[Candidate]:
    described: set[int] = set()
    for number, regions in _regions(root / REGIONS):
        if number in described:
            raise UserError(f"{root / REGIONS} lists image {number} twice; unpack it again")
        described.add(number)
        image = images.get(number)
        if image is None:
            notes.add(f"images that {IMAGES} does not list", str(number))
        captions = _captions(config, number, image or {}, regions, notes)
        yield _candidate(config, root, number, image, captions, locations.get(number, ""))
    if not described:
        raise UserError(f"{root / REGIONS} holds no regions; unpack it again")
    for number in sorted(images.keys() - described):
        yield _candidate(config, root, number, images[number], (), locations[number])


def _regions(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Each image's id and regions, streamed: the file is too large to be loaded whole."""
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
    notes: CountedNotes,
) -> tuple[str, ...]:
    """The phrases of the largest regions, largest first, each once; what is left out is noted."""
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
            notes.add(what, f"image {number}", count)
    return tuple(kept)


def _candidate(
    config: VisualGenomeConfig,
    root: Path,
    number: int,
    image: Image | None,
    captions: tuple[str, ...],
    location: str,
) -> Candidate:
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
            "group": "" if coco is None else f"coco-{coco}",  # as in the COCO reader
        },
    )


def _locations(root: Path, images: dict[int, Image], notes: CountedNotes) -> dict[int, str]:
    """Each image's file, by its id: in the folder that its url names or elsewhere; "" for none."""
    from curate.readers.matching.matches import match

    matches = match(root, [_row(number, image) for number, image in images.items()])
    for number, found in zip(images, matches, strict=True):
        if found.note:
            notes.add(found.note, f"image {number}")
    return {number: found.location for number, found in zip(images, matches, strict=True)}


def _row(number: int, image: Image) -> Row:
    """Its file in the folder that its url names, and by its name alone: some unpack both into one folder."""
    url = PurePosixPath(image.get("url") or f"{FOLDERS[0]}/{number}.jpg")
    folder = url.parent.name if url.parent.name in FOLDERS else FOLDERS[0]
    return Row(paths=(f"{folder}/{url.name}", url.name))

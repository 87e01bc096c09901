"""The archives of COCO's captions and pictures, as its authors publish them."""

from __future__ import annotations

from collections.abc import Sequence

from curate.readers.archives import Archive
from curate.run.schema import check

# As cocodataset.org links them. COCO publishes neither sizes nor hashes: the sizes are those that its server sends;
# the hashes are in torchvision's prototype of the data set, too.
_SERVER = "http://images.cocodataset.org"
_PICTURES = {  # split => size and SHA-256 of its zip file, and how many pictures it holds
    "train2017": (
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        118_287,
    ),
    "val2017": (
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        5_000,
    ),
    "train2014": (
        13_510_573_713,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        82_783,
    ),
    "val2014": (
        6_645_013_297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        40_504,
    ),
}
_CAPTIONS = {  # year => size and SHA-256 of the zip file of captions
    "2017": (
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    "2014": (
        252_872_794,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
}

DEFAULT = ("train2017", "val2017")


def published(splits: Sequence[str] | None) -> tuple[Archive, ...]:
    """The captions, then the pictures of each split; of those of 2017 for None.

    Raises:
        UserError: one of ``splits`` is not published.
    """
    wanted = splits or DEFAULT
    for split in wanted:
        check(split in _PICTURES, "dataset.splits", f"[{split}]", ", ".join(_PICTURES))
    captions = [
        Archive(
            f"{_SERVER}/annotations/annotations_trainval{year}.zip",
            size,
            files=tuple(f"annotations/captions_{side}{year}.json" for side in ("train", "val")),
            sha256=digest,
        )
        for year, (size, digest) in _CAPTIONS.items()
        if any(split.endswith(year) for split in wanted)
    ]
    pictures = [
        Archive(f"{_SERVER}/zips/{split}.zip", size, {split: count}, sha256=digest)
        for split, (size, digest, count) in _PICTURES.items()
        if split in wanted
    ]
    return (*captions, *pictures)

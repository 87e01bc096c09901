"""Which picture is shown: the one with the ledger's hash, from the shards or the source, and none that was removed."""

import base64
import hashlib
import io
import tarfile
from dataclasses import replace

import pytest
from PIL import Image

from curate import remove
from curate.report.diff import pictures, runs
from curate.report.diff.pictures import ABSENT, REMOVED
from curate.run.removals import Removals, write_removals


def red(shown):
    """The red of a picture that is one colour."""
    data = base64.b64decode(shown.uri.partition(",")[2])
    return Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))[0]


def shown(before, now, **options):
    return pictures.pictures(runs.compare_runs(before, now).difference, before, now, **options)


def png(value):
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_come_from_the_shards_of_their_own_run(two_runs):
    found = shown(*two_runs)
    for side, key, value in (
        ("before", "k05", 5),  # dropped now
        ("now", "k05", 5),  # the same bytes, which only the first run's shards have
        ("before", "k10", 10),
        ("before", "k09", 9),
        ("before", "k08", 8),
    ):
        assert red(found[side, key]) == value


def test_a_shard_that_holds_other_bytes_than_the_ledger_says_shows_nothing(two_runs):
    found = shown(*two_runs)
    assert found["now", "k08"].why == found["now", "k30"].why == ABSENT


def test_a_dropped_picture_comes_from_its_source_if_it_is_still_the_same(two_runs, edit):
    before, now = two_runs
    root = now.parents[2] / "pictures"
    root.mkdir()
    data = png(77)
    (root / "30.png").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()

    def point(rows):
        rows["location"] = rows["key"].map({"k30": "30.png"}).fillna("")
        rows.loc[rows["key"] == "k30", ["sha256", "kept", "status", "rule", "reason", "split", "shard"]] = (
            [digest, False, "dropped", "aspect", "aspect > 3", "", ""]
        )  # fmt: skip
        return rows

    edit(now, point)
    assert red(shown(before, now)["now", "k30"]) == 77
    (root / "30.png").write_bytes(png(78))
    assert shown(before, now)["now", "k30"].why == ABSENT


def test_a_picture_that_was_removed_is_shown_of_neither_run(two_runs):
    before, now = two_runs
    assert red(shown(before, now)["before", "k10"]) == 10
    remove.remove(now, "keys", {"k07"}, "0" * 64)
    remove.remove(before, "keys", {"k09"}, "0" * 64)
    write_removals(
        now, replace(Removals(), urls=frozenset({"https://x.org/10"}), keys=frozenset({"k07"}))
    )
    found = shown(before, now)
    for key in ("k07", "k10", "k09", "renamed"):
        for side in ("before", "now"):
            if (side, key) in found:
                assert (found[side, key].uri, found[side, key].why) == ("", REMOVED), (side, key)
    assert {
        ("before", "k07"),
        ("now", "k07"),
        ("before", "k10"),
        ("now", "renamed"),
    } <= found.keys()
    assert red(found["before", "k05"]) == 5
    write_removals(now, replace(Removals(), keys=frozenset({"renamed"})))  # under its new key alone
    write_removals(before, Removals())
    assert shown(before, now)["before", "k09"].why == REMOVED


def test_a_damaged_shard_and_one_that_is_gone_show_nothing(two_runs):
    before, now = two_runs
    for run in two_runs:
        (run / "shards/train/000001.tar").write_bytes(b"no tar" * 1000)
        (run / "shards/train/000000.tar").unlink()
    assert {thumb.why for thumb in shown(before, now).values()} == {ABSENT}


def test_all_thumbnails_together_stay_below_the_limit(two_runs):
    found = shown(*two_runs, room_bytes=500)
    assert sum(len(thumb.uri) for thumb in found.values()) <= 500
    assert any("page size limit" in thumb.why for thumb in found.values())
    assert any(thumb.uri for thumb in found.values())


@pytest.mark.parametrize(
    "dataset", [{}, {"reader": "hub"}, {"reader": "shards", "typo": 1}, {"reader": 7}]
)
def test_a_source_that_cannot_be_opened_has_no_pictures(dataset):
    assert pictures._opened(dataset) is None


def test_a_source_that_opens_at_once_loads_by_location(tmp_path):
    data, tar = png(5), tmp_path / "00000.tar"
    with tarfile.open(tar, "w") as opened:
        for name, content in (("a.png", data), ("a.txt", b"red")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    with tarfile.open(tar) as opened:
        offset = opened.getmember("a.png").offset_data
    dataset = {
        "name": "mine",
        "reader": "shards",
        "path": str(tmp_path),
        "spool": str(tmp_path / "spool"),
    }
    load = pictures._opened(dataset)
    assert load(f"00000.tar:{offset}:{len(data)}") == data

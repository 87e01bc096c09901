"""One pair's story: every verdict, every number that led to it."""

import hashlib
import tarfile

import pandas as pd
import pytest

from curate.explain import explain
from curate.run import ledger, reconsider
from curate.run.folder import curate_dir
from curate.run.reconsider import Doubt
from curate.run.schema import UserError


def story(finished, key):
    [text] = explain(finished, [key])
    return text


def test_a_kept_picture_with_two_captions(finished):
    text = story(finished, "k00")
    for line in (
        "k00 from drawn: kept with 2 of 2 captions",
        "8 x 6 px, PNG",
        "'a cat 0': kept",
        "'meow': kept",
        "similarity 0.2500 by tiny 0, below the cut 0.2900 (minimum=0.29)",
        "shards/val/000000.tar",
        "https://x.org/0",
        "sharpness    1.5",
    ):
        assert line in text


def test_the_offsets_read_the_members(finished):
    lines = [line.split() for line in story(finished, "k12").splitlines() if " bytes at " in line]
    assert [line[0] for line in lines] == ["k12.png:", "k12.json:", "k12.txt:"]
    data = (finished / "shards/train/000001.tar").read_bytes()
    with tarfile.open(finished / "shards/train/000001.tar") as tar:
        for name, size, *_, offset in lines:
            expected = tar.extractfile(name[:-1]).read()
            assert data[int(offset) : int(offset) + int(size)] == expected


def test_the_dropped_and_the_unreadable(finished):
    low, copy, broken = explain(finished, ["k03", "k04", "k06"])
    assert "k03 from drawn: dropped" in low
    assert "'a cat 3': clip_similarity < 0.29" in low
    assert "similarity 0.2800 by tiny 0, below the cut" in low
    assert "copy of      k05, which is kept instead" in copy
    assert "k05: kept, its hash differs in 1 of 64 bits" in copy
    assert "unreadable: truncated" in broken
    assert "similarity not measured" in broken
    assert "px" not in broken
    assert all("shard " not in text for text in (low, copy, broken))


def test_the_keeper_of_a_copy_may_have_been_removed(finished):
    part = finished / "ledger/part-00000.parquet"
    rows = pd.read_parquet(part)
    rows.loc[rows["key"] == "k05", ["kept", "status", "reason"]] = False, "dropped", "removed"
    rows.to_parquet(part, index=False)
    assert "copy of      k05, which was removed later" in story(finished, "k04")


def test_a_mirrored_copy_is_told_as_such(finished):
    path = finished / "ledger" / "part-00000.parquet"
    rows = pd.read_parquet(path)
    rows.loc[rows["key"] == "k05", "phash"] = "f" * 16
    rows.to_parquet(path)
    (copy,) = explain(finished, ["k04"])
    assert "k05: kept, its mirror image's hash differs in 1 of 64 bits" in copy
    rows.drop(columns="phash_mirrored").to_parquet(path)  # as before there was one
    (copy,) = explain(finished, ["k04"])
    assert "k05: kept, its hash differs in 63 of 64 bits" in copy


def test_a_similarity_of_exactly_the_cut_is_not_below_it(finished):
    assert "similarity 0.2900 by tiny 0, at or above the cut 0.2900" in story(finished, "k04")


def test_a_typo_is_offered_what_it_may_have_meant(finished):
    stories = explain(finished, ["k007", "k00", "§"])
    assert next(stories).startswith("k00 from drawn")
    with pytest.raises(UserError, match=r"no key and no file 'k007'; near ones: .*k07.*; nor '§'"):
        next(stories)
    with pytest.raises(UserError, match="no key and no file '§'; it begins with: k00, k01, k02"):
        list(explain(finished, ["§"]))


def test_a_picture_is_found_by_its_file(finished, tmp_path):
    """By its name, with more or fewer folders, also where the file is gone; by its bytes where it is there."""
    file = tmp_path / "elsewhere" / "another-name.png"
    file.parent.mkdir()
    file.write_bytes(b"bytes")
    for part in (finished / "ledger").glob("part-*.parquet"):
        rows = pd.read_parquet(part)
        rows["file_name"] = "cats/" + rows["key"] + ".png"
        rows.loc[rows["key"] == "k03", "sha256"] = hashlib.sha256(b"bytes").hexdigest()
        rows.to_parquet(part, index=False)
    expected = story(finished, "k03")
    assert "clip_similarity < 0.29" in expected
    for name in ("k03.png", "cats/k03.png", "/gone/cats/k03.png", str(file), "k03"):
        assert story(finished, name) == expected
    assert list(explain(finished, ["k03.png", "k03", "k05"])) == [expected, story(finished, "k05")]
    with pytest.raises(UserError, match=r"no key and no file 'dogs/k03.png'; near ones: k03"):
        story(finished, "dogs/k03.png")


def test_another_captions_row_may_be_the_copy(finished):
    part = finished / "ledger/part-00000.parquet"
    table = pd.read_parquet(part)
    gone = (table["key"] == "k00") & (table["caption_index"] == 1)
    table.loc[gone, ["kept", "status", "reason", "duplicate_of"]] = False, "dropped", "copy", "k05"
    table.to_parquet(part, index=False)
    assert "copy of      k05, which is kept instead" in story(finished, "k00")


def test_other_unreadable_pictures_are_not_read(finished, monkeypatch):
    read, rows = ledger.read, []
    monkeypatch.setattr(ledger, "read", lambda *a, **k: rows.append(read(*a, **k)) or rows[-1])
    assert "group" not in story(finished, "k06")
    assert [len(table) for table in rows] == [1]


def test_a_damaged_part_and_a_damaged_shard_are_said(finished):
    shard, part = finished / "shards/val/000000.tar", finished / "ledger/part-00001.parquet"
    shard.write_bytes(b"no tar" * 1_000)
    assert "which is damaged" in story(finished, "k00")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-00001\.parquet is damaged .*python -m curate run"):
        list(explain(finished, ["k00"]))


def test_a_shard_that_is_missing_is_said(finished):
    (finished / "shards/val/000000.tar").unlink()
    assert f"which is missing; python -m curate.verify {finished.parent} says" in story(
        finished, "k00"
    )


def test_a_run_by_folder_and_by_name(finished, monkeypatch):
    assert curate_dir(str(finished.parent)) == curate_dir(str(finished)) == finished
    monkeypatch.chdir(finished.parents[2])
    assert curate_dir("done").resolve() == finished
    with pytest.raises(FileNotFoundError, match=r"down is no curated run.*runs/ holds done"):
        curate_dir("down")
    (finished / "ledger").rename(finished / "gone")
    with pytest.raises(FileNotFoundError, match=r"python -m curate run\.name=done"):
        list(explain(finished, ["k00"]))


def test_an_evaluation_that_listed_the_pair_says_why(finished):
    path = finished.parent / "evaluate" / reconsider.FILE
    reconsider.write(path, [Doubt("k12", "a cat 12", "its caption is of no use", 0.0, 0.1, None)])
    named = f"(evaluation of {finished.parent})"
    assert f"\n  reconsider   its caption is of no use {named}" in story(finished, "k12")
    assert "reconsider" not in story(finished, "k11")

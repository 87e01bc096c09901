"""What is removed is gone everywhere and for good; what is not stays as it was, whatever interrupts."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from curate import remove
from curate.pack.sample import read_shard
from curate.run import checksums, reconsider
from curate.run.files import write_certified
from curate.run.finished import RECORD
from curate.run.manifest import read_manifest
from curate.run.parquet import schema_as_written, write_table
from curate.run.reconsider import Doubt
from curate.run.removals import Removals, read_list, read_removals
from curate.run.schema import UserError
from curate.run.seen_by import TABLE
from curate.verify import problems

EMPTIED = "shards/val/000000.tar"


def take(curate_dir, by, *listed, copies=False):
    return remove.remove(curate_dir, by, set(listed), "0" * 64, copies)


def ledger(curate_dir):
    parts = sorted((curate_dir / "ledger").iterdir())
    return pd.concat([pd.read_parquet(part) for part in parts]).set_index("key")


def samples(curate_dir):
    shards = read_manifest(curate_dir).shards
    return {s.key: s for shard in shards for s in read_shard(curate_dir / shard.path)}


def digests(curate_dir):
    files = [path for path in curate_dir.rglob("*") if path.is_file()]
    return {
        path.relative_to(curate_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("removed.json", "checksums.json")  # the first says when
    }


def test_a_shard_that_is_not_concerned_is_not_read(finished):
    """Its hash is the manifest's: to read all shards would take hours, and list what is damaged as right."""
    checksums.write(finished)
    other = finished / "shards/train/000000.tar"
    other.write_bytes(other.read_bytes()[:-1] + b"x")
    take(finished, "keys", "k11")
    assert checksums.damaged(finished) == ["shards/train/000000.tar"]


def test_only_the_shards_concerned_are_rewritten(finished):
    before, kept_before, rows_before = digests(finished), samples(finished), ledger(finished)
    record = take(finished, "keys", "k11", "k13", "k03", "no-such-key")
    after = digests(finished)
    changed = {path for path in before if after.get(path) != before[path]}
    assert {path for path in changed if path.startswith("shards/")} == {
        f"shards/train/000001{end}" for end in (".tar", ".parquet", "_stats.json")
    }
    assert record | {"listed": 4, "found": 3, "pictures": 2, "pairs": 2} == record
    left = samples(finished)
    assert kept_before.keys() - left.keys() == {"k11", "k13"}
    assert all(left[key] == kept_before[key] for key in left)
    rows = ledger(finished)
    assert set(rows.index[rows["reason"] == "removed"]) == {"k11", "k13"}
    assert set(rows.index[rows["rule"] == "removed"]) == {"k11", "k13"}
    assert rows.loc["k03", "reason"] == "clip_similarity < 0.29"  # dropped for that before
    untouched = rows.index.difference(["k11", "k13"])
    pd.testing.assert_frame_equal(rows.loc[untouched], rows_before.loc[untouched])
    assert list(problems(finished, images=True)) == []


def test_rewritten_parts_keep_the_types_of_the_others(finished):
    """Of categories, which pandas writes with long texts, Arrow reads short ones."""
    parts = sorted((finished / "ledger").iterdir())
    for part in parts:
        pd.read_parquet(part).astype({"source": "category"}).to_parquet(part, index=False)
    before = [part.read_bytes() for part in parts]
    types = [schema_as_written(part).types for part in parts]
    take(finished, "keys", "k11")
    assert [part.read_bytes() == content for part, content in zip(parts, before, strict=True)] == [
        True,
        False,
    ]
    assert [schema_as_written(part).types for part in parts] == types
    assert pa.types.is_large_string(schema_as_written(parts[1]).field("source").type.value_type)


def test_totals_follow(finished):
    take(finished, "keys", "k00", "k05")
    totals = read_manifest(finished).totals
    expected = {"pairs_in": 25, "kept": 19, "dropped": 5, "unreadable": 1}
    assert totals == expected | {"samples": {"train": 18, "val": 1, "test": 0}}
    take(finished, "keys", "k07")
    funnel = json.loads((finished / "funnel.json").read_text())
    assert funnel["rules"][-1] == {"rule": "removed", "dropped": 4, "left": 18}
    assert funnel["reasons"] == {"removed": 4}
    assert funnel["kept"] == 18
    assert not (finished / "report.html").exists()


def test_by_address_and_by_file(finished):
    take(finished, "urls", "https://x.org/8", "https://x.org/nowhere")
    file = ledger(finished).loc["k09", "sha256"]
    take(finished, "sha256", file)
    assert not samples(finished).keys() & {"k08", "k09"}
    known = read_removals(finished)
    assert {file, ledger(finished).loc["k08", "sha256"]} == known.sha256
    assert known.urls == {"https://x.org/8", "https://x.org/nowhere"}


@pytest.mark.parametrize("name", ["URL", "image_url", "source_url", "downloadurl", "OriginalURL"])
def test_a_picture_is_found_by_any_column_of_addresses(finished, name):
    rename(finished, url=name)
    assert take(finished, "urls", "https://x.org/8")["found"] == 1
    assert "k08" not in samples(finished)


def test_addresses_of_other_things_name_no_picture(finished):
    rename(finished, url="licence_url")
    before = digests(finished)
    with pytest.raises(UserError, match=r"has no addresses.*--keys or --sha256"):
        take(finished, "urls", "https://x.org/8")
    assert digests(finished) == before
    assert read_removals(finished) == Removals()


def rename(curate_dir, **names):
    for part in sorted((curate_dir / "ledger").iterdir()):
        pd.read_parquet(part).rename(columns=names).to_parquet(part, index=False)


def test_a_list_typed_again_counts_anew(finished):
    assert take(finished, "keys", "k08", "k09")["pictures"] == 2
    again = take(finished, "keys", "k08", "k09")
    assert again | {"found": 2, "pictures": 0, "pairs": 0} == again
    assert len(read_removals(finished).records) == 2


def test_later_curations_leave_out_the_listed_and_their_files(finished):
    assert not read_removals(finished).drops(ledger(finished).reset_index()).any()
    take(finished, "keys", "k08")
    file = ledger(finished).loc["k08", "sha256"]
    pairs = pd.DataFrame({"key": ["k08", "new", "k09"], "sha256": ["changed", file, "other"]})
    assert read_removals(finished).drops(pairs).tolist() == [True, True, False]


def test_copies_go_when_asked_for(finished):
    for part in sorted((finished / "ledger").iterdir()):
        table = pd.read_parquet(part)
        table.loc[table["key"].isin(["k20", "k21"]), "duplicate_group"] = "same"
        table.to_parquet(part, index=False)
    unkept = take(finished, "keys", "k04")  # k05 is kept instead
    assert unkept | {"pictures": 0, "copies_left": 1} == unkept
    both = take(finished, "keys", "k20", copies=True)
    assert both | {"pictures": 2, "copies_left": 0} == both
    assert not samples(finished).keys() & {"k20", "k21"}
    assert "k05" in samples(finished)
    assert list(problems(finished)) == []


def test_siblings_are_no_copies(finished):
    """They share the duplicate group, which keeps them on one side of the split."""
    for part in sorted((finished / "ledger").iterdir()):
        table = pd.read_parquet(part).assign(copy_group=lambda rows: rows["duplicate_group"])
        table.loc[table["key"].isin(["k20", "k21"]), "duplicate_group"] = "same"
        table.to_parquet(part, index=False)
    record = take(finished, "keys", "k20", copies=True)
    assert record | {"pictures": 1, "copies_left": 0} == record
    assert "k21" in samples(finished)


def test_an_emptied_shard_goes(finished):
    take(finished, "keys", "k00", "k01")
    assert [shard.path for shard in read_manifest(finished).shards if shard.split == "val"] == []
    assert not list((finished / "shards/val").iterdir())
    assert list(problems(finished)) == []


def flipped(content):
    """A bit of the picture of k12, or whatever else is there."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "a bit": flipped,
    "a cut in the first sample": lambda content: content[:600],
    "a cut in the midst": lambda content: content[: len(content) // 2 + 100],
    "no tar": lambda content: b"garbage" * 1000,
    "nothing": lambda content: b"",
    "missing": None,
}


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how:
        path.write_bytes(how(content))


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("end", [".tar", ".parquet"])
def test_a_damaged_shard_is_refused_before_anything_is_changed(finished, how, end):
    if (how, end) == (flipped, ".parquet"):
        pytest.skip("a table has no hash")
    damage(finished / f"shards/train/000001{end}", how)
    before = digests(finished)
    with pytest.raises(
        UserError, match=r"shards/train/000001\.tar: damaged.*python -m curate "
    ) as said:
        take(finished, "keys", "k10", "k21")
    assert "000002" not in str(said.value)
    assert digests(finished) == before
    assert not (finished / "removed.json").exists()
    take(finished, "keys", "k21")  # of other shards nothing is asked


def test_copies_and_the_same_files_lead_to_shards_that_are_checked_too(finished):
    for part in sorted((finished / "ledger").iterdir()):
        table = pd.read_parquet(part)
        table.loc[table["key"].isin(["k20", "k11"]), "duplicate_group"] = "same"
        table.loc[table["key"].isin(["k21", "k12"]), "sha256"] = "f" * 64
        table.to_parquet(part, index=False)
    damage(finished / "shards/train/000001.tar", flipped)
    for key, copies in (("k20", True), ("k21", False)):
        with pytest.raises(UserError, match=r"000001\.tar: damaged"):
            take(finished, "keys", key, copies=copies)
    assert not (finished / "removed.json").exists()
    take(finished, "keys", "k20")


def test_damage_after_an_interruption_is_refused_as_well(finished, monkeypatch):
    with monkeypatch.context() as patch:
        _kill_after(patch, 6)  # removed.json, the report and one shard
        with pytest.raises(Killed):
            take(finished, "keys", "k02", "k11")
    rewritten = finished / "shards/train/000000.tar"
    stats = json.loads(rewritten.with_name("000000_stats.json").read_text())
    assert stats["sha256"] == hashlib.sha256(rewritten.read_bytes()).hexdigest()
    whole = rewritten.read_bytes()
    rewritten.write_bytes(flipped(whole))
    before = digests(finished)
    for listed in (("k02", "k11"), ("k21",)):
        with pytest.raises(UserError, match=r"000000\.tar: damaged"):
            take(finished, "keys", *listed)
    assert digests(finished) == before
    rewritten.write_bytes(whole)
    take(finished, "keys", "k02", "k11")
    assert list(problems(finished)) == []


class Killed(BaseException):
    """As sudden as SIGKILL: nothing of this program catches it."""


def test_killed_at_any_step_the_same_command_completes_it(finished, monkeypatch, tmp_path):
    whole = tmp_path / "runs" / "whole"
    shutil.copytree(finished.parent, whole)
    listed = ("k00", "k01", "k11", "k21")
    take(whole / "curate", "keys", *listed)
    expected, steps = digests(whole / "curate"), 0
    while True:
        run = tmp_path / "runs" / f"killed{steps}" / "curate"
        shutil.copytree(finished, run)
        with monkeypatch.context() as patch:
            _kill_after(patch, steps)
            try:
                take(run, "keys", *listed)
            except Killed:
                (run / "shards/train/.000000.tar.1.part").write_bytes(b"left behind")
            else:
                break
        take(run, "keys", *listed)
        assert digests(run) == expected, f"killed at step {steps}"
        # Killed after the last record and before checksums.json, it is typed once more for nothing.
        assert [record["pictures"] for record in read_removals(run).records] in ([4], [4, 0])
        assert checksums.damaged(run) == []
        assert not read_removals(run).pending
        assert list(problems(run)) == []
        steps += 1
    assert steps > 12


def _kill_after(patch, steps):
    """Let so many files be renamed or deleted, and no more."""
    left = iter(range(steps))

    def counted(change):
        def changed(path, *arguments, **options):
            own_part = change is real_unlink and path.name.endswith(".part")
            if not own_part and next(left, None) is None:
                raise Killed
            return change(path, *arguments, **options)

        return changed

    real_unlink = Path.unlink
    patch.setattr(Path, "unlink", counted(real_unlink))
    patch.setattr(Path, "replace", counted(Path.replace))


def test_lists(tmp_path):
    path = tmp_path / "list"
    with pytest.raises(FileNotFoundError):
        read_list(path, "keys")
    path.write_text("\n \n")
    with pytest.raises(UserError, match="is empty"):
        read_list(path, "keys")
    path.write_text("\ufeffa b \r\n\r\nc\na b\n", encoding="utf-8")
    assert read_list(path, "keys") == {"a b", "c"}
    with pytest.raises(UserError, match="'a b' is no sha256"):
        read_list(path, "sha256")
    path.write_text("AB" * 32)
    assert read_list(path, "sha256") == {"ab" * 32}
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="no UTF-8"):
        read_list(path, "urls")


def test_the_command(finished, tmp_path):
    (tmp_path / "keys").write_text("k02\n")
    command = [sys.executable, "-m", "curate.remove", str(finished.parent)]

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=os.environ
        )

    trained = finished.parent / "finetune"
    (trained / "checkpoints" / "step-00000001").mkdir(parents=True)
    shown = [finished.parent / stage for stage in ("evaluate", "compare")]
    for stage in shown:
        stage.mkdir()
    done = run("--keys", str(tmp_path / "keys"))
    assert done.returncode == 0, done.stderr
    said = (
        f"trained on the shards as they were: {trained}. Now they can neither go on nor be judged"
    )
    assert said in done.stdout
    assert f"may still show them; delete: {shown[0]}, {shown[1]}" in done.stdout
    assert "1 keys listed, 1 of them found; removed 1 pictures with 1 pairs" in done.stdout
    [record] = read_removals(finished).records
    assert record["list_sha256"] == hashlib.sha256(b"k02\n").hexdigest()
    assert run().returncode == 2
    (finished / "report.html").write_text("as it is")
    (tmp_path / "typo").write_text("k02\nk0002\n")
    again = run("--keys", str(tmp_path / "typo"))
    assert "2 keys listed, 1 of them found; removed 0 pictures" in again.stdout
    assert (
        "not in this run: k0002; a later curation leaves out pictures with these keys"
        in again.stdout
    )
    assert f"python -m curate.explain {finished.parent} FILE names it" in again.stdout
    assert (finished / "report.html").exists()
    (finished / "manifest.json").unlink()
    unfinished = run("--keys", str(tmp_path / "keys"))
    assert unfinished.returncode == 2
    assert "no finished curation" in unfinished.stderr


def test_what_was_given_to_trainings_is_said_before_and_after(
    finished, tmp_path, monkeypatch, capsys
):
    """Of one on these shards, of one that an earlier removal left behind, and of one on another curation."""
    digests_of = {key: hashlib.sha256(key.encode()).hexdigest() for key in ("k02", "k03", "k11")}
    for part in (finished / "ledger").glob("*.parquet"):
        rows = pd.read_parquet(part)
        rows["sha256"] = [digests_of.get(key, "") for key in rows["key"]]
        rows.to_parquet(part, index=False)
    sides = {
        "one": {"k02": "train", "k11": "val", "k12": "train"},
        "two": {"k11": "train", "k03": "train"},
        "three": {"k12": "train"},
    }
    for run, of in sides.items():
        folder = finished.parents[1] / run / "finetune"
        folder.mkdir(parents=True)
        table = pd.DataFrame({"sha256": [digests_of.get(k, "") for k in of], "split": of.values()})
        write_table(folder / TABLE, pa.Table.from_pandas(table, preserve_index=False))
    path = tmp_path / "keys"
    path.write_text("k02\nk11\nk03\n")
    one, two = (finished.parents[1] / run / "finetune" for run in ("one", "two"))
    said = (
        f"trained on them: {one} (1), {two} (2)\njudged by them: {one} (1)\na model does not forget"
    )
    before = digests(finished)
    argv = ["remove", str(finished.parent), "--keys", str(path)]
    monkeypatch.setattr(sys, "argv", [*argv, "--dry-run"])
    remove.main()
    out = capsys.readouterr().out
    assert out.startswith(
        f"would remove 2 pictures with 2 pairs from {finished.parent}; nothing was"
    )
    assert said in out
    assert digests(finished) == before
    assert not (finished / "removed.json").exists()
    monkeypatch.setattr(sys, "argv", argv)
    remove.main()
    out = capsys.readouterr().out
    assert "removed 2 pictures with 2 pairs" in out
    assert said in out


def test_a_run_of_a_series_is_not_sent_to_commands_that_refuse_it(
    finished, tmp_path, monkeypatch, capsys
):
    write_certified(finished.parent / RECORD, {"outcome": "promoted"})
    (finished.parent / "finetune" / "checkpoints" / "step-00000001").mkdir(parents=True)
    samples_dir = finished.parent / "evaluate" / "samples"
    samples_dir.mkdir(parents=True)
    path = tmp_path / "keys"
    path.write_text("k02\n")
    monkeypatch.setattr(sys, "argv", ["remove", str(finished.parent), "--keys", str(path)])
    remove.main()
    out = capsys.readouterr().out
    assert "report.html was deleted, as it may show them\n" in out
    assert "the next python -m workflows.retrain leaves these pictures out" in out
    assert "run.name" not in out
    assert (
        f"delete: {samples_dir}\n" in out
    )  # and not the figures that the next run is compared with


def test_a_ledger_of_an_earlier_version_has_no_rule_and_gets_none(finished):
    for part in (finished / "ledger").glob("*.parquet"):
        pd.read_parquet(part).drop(columns="rule").to_parquet(part, index=False)
    take(finished, "keys", "k08")
    assert "rule" not in ledger(finished)
    assert ledger(finished).loc["k08", "reason"] == "removed"
    assert list(problems(finished)) == []


def test_the_pairs_that_an_evaluation_lists_are_removed(finished, tmp_path):
    listed = tmp_path / "reconsider.csv"
    reconsider.write(
        listed, [Doubt(key, "=a cat", "why", 0.0, 0.1, 0.3) for key in ("k11", "k12", "gone")]
    )
    command = [sys.executable, "-m", "curate.remove", str(finished.parent), "--from"]

    def run(path):
        return subprocess.run([*command, str(path)], capture_output=True, text=True, env=os.environ)

    refused = run(tmp_path / "reconsider")
    assert refused.returncode == 2
    assert "there is no" in refused.stderr
    done = run(listed)
    assert done.returncode == 0, done.stderr
    assert "3 keys listed, 2 of them found; removed 2 pictures with 2 pairs" in done.stdout
    assert "not in this run: gone" in done.stdout
    assert not samples(finished).keys() & {"k11", "k12"}
    assert list(problems(finished)) == []


def test_the_name_of_a_file_is_no_key_and_removes_nothing(finished, tmp_path, monkeypatch):
    """Or a user would believe that IMG_0015.JPG is gone."""
    (tmp_path / "names").write_text("k02\nIMG_0015.JPG\n")
    before = (finished / "manifest.json").read_bytes()
    for further in ([], ["--dry-run"]):
        typed = ["remove", str(finished.parent), "--keys", str(tmp_path / "names"), *further]
        monkeypatch.setattr("sys.argv", typed)
        with pytest.raises(
            UserError, match=r"IMG_0015\.JPG' is no key.*curate\.explain .* IMG_0015\.JPG"
        ):
            remove.main()
    assert (finished / "manifest.json").read_bytes() == before


def test_a_trial_says_what_is_not_there(finished, tmp_path, monkeypatch, capsys):
    (tmp_path / "keys").write_text("k02\nk0002\n")
    typed = ["remove", str(finished.parent), "--keys", str(tmp_path / "keys"), "--dry-run"]
    monkeypatch.setattr("sys.argv", typed)
    remove.main()
    said = capsys.readouterr().out
    assert "not in this run: k0002" in said
    assert "later curation" not in said  # which is promised by a removal only

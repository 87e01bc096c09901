"""A sound run has no problem, and each kind of damage has its line."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile

import pandas as pd
import pyarrow as pa
import pytest

from curate import verify
from curate.run import checksums, database
from curate.run.files import sha256_of, write_certified, write_text
from curate.run.memory import for_tables
from curate.run.parquet import write_table
from curate.run.schema import UserError
from curate.verify import problems

SHARD = "shards/train/000001.tar"


def found(curate_dir, images=False):
    return "\n".join(problems(curate_dir, images))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sound_run(finished):
    assert found(finished) == ""
    assert found(finished, images=True) == ""


def test_tables_take_a_share_of_the_memory_and_the_place_of_temporary_files(finished, monkeypatch):
    explained, limits = database._explained, []
    monkeypatch.setattr(
        database, "_explained", lambda given, name: limits.append(given) or explained(given, name)
    )
    assert found(finished) == ""
    [given] = limits
    assert given.memory_bytes == for_tables()
    assert given.scratch.is_relative_to(tempfile.gettempdir())
    assert "TMPDIR" in given.more_scratch


def test_a_flipped_bit(finished):
    path = finished / SHARD
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT") + 6
    data[place] ^= 1
    path.write_bytes(data)
    assert found(finished) == f"{SHARD}: its sha256 is not the manifest's"
    assert "k10: the picture" in found(finished, images=True)


def write_json_of(curate_dir, key, **changes):
    """Write SHARD again as a curation would that has these values in the json of one picture."""
    path = curate_dir / SHARD
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    files[f"{key}.json"] = json.dumps(json.loads(files[f"{key}.json"]) | changes).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    now = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    edit(path.with_name("000001_stats.json"), **now)
    shards = json.loads((curate_dir / "manifest.json").read_text())["shards"]
    shards = [shard | now if shard["path"] == SHARD else shard for shard in shards]
    edit(curate_dir / "manifest.json", shards=shards)


def test_a_picture_that_was_encoded_again_is_not_damaged(finished):
    """Such as a PNG with transparency, or a JPEG that was turned: the json has the source's sha256."""
    write_json_of(finished, "k10", sha256="0" * 64, width=8, height=6)
    assert found(finished, images=True) == ""
    write_json_of(finished, "k10", sha256="0" * 64, width=6, height=8)
    assert "k10: the picture has 8 x 6 px, and its json says 6 x 8" in found(finished, images=True)


def test_a_cut_tar(finished):
    (finished / SHARD).write_bytes((finished / SHARD).read_bytes()[:5_000])
    text = found(finished)
    for line in ("5000 bytes, and the manifest says", "is damaged", "the ledger has, and the tar"):
        assert line in text


def test_missing_and_stray_files(finished):
    (finished / SHARD).rename(finished / "shards/train/000009.tar")
    (finished / "shards/val/000000.parquet").unlink()
    (finished / "shards/train/000000_stats.json").unlink()
    text = found(finished)
    assert f"{SHARD}: missing" in text
    assert "shards/train/000009.tar: the manifest does not list it" in text
    assert "shards/val/000000.tar: its table 000000.parquet cannot be read" in text
    assert "shards/train/000000.tar: 000000_stats.json is missing" in text


def test_tables_that_disagree(finished):
    path = (finished / SHARD).with_suffix(".parquet")
    table = pd.read_parquet(path)
    table[::-1].to_parquet(path, index=False)
    assert "its table has another order" in found(finished)
    table[1:].to_parquet(path, index=False)
    assert "its table lacks 1 keys: k10" in found(finished)
    edit(path.with_name("000001_stats.json"), count=9)
    assert "000001_stats.json says count 9, the manifest 10" in found(finished)


def ledger(curate_dir, key, **changes):
    path = curate_dir / "ledger/part-00000.parquet"
    table = pd.read_parquet(path)
    for name, value in changes.items():
        table.loc[table["key"] == key, name] = value
    table.to_parquet(path, index=False)


def test_a_ledger_that_disagrees(finished):
    ledger(finished, "k05", kept=False)
    text = found(finished)
    assert "shards/train/000000.tar: the ledger lacks 1 keys: k05" in text
    assert "kept, rule, reason and status disagree for 1 pairs: ['k05']" in text
    ledger(finished, "k05", status="dropped", reason="bad")
    assert "kept is 22, and the ledger has 21" in found(finished)


def test_a_ledger_of_other_shards_and_sides(finished):
    ledger(finished, "k05", shard="shards/train/000009.tar")
    ledger(finished, "k06", shard="shards/train/000009.tar")  # which is not kept
    ledger(finished, "k07", split="val")
    text = found(finished)
    assert "000009.tar: the ledger keeps 1 pictures there, the manifest has none" in text
    assert "shards/train/000000.tar: the ledger lacks 1 keys: k05" in text
    assert "shards/train/000000.tar: the ledger has pictures of another side there" in text


def test_a_kept_pair_that_a_rule_dropped(finished):
    ledger(finished, "k05", rule="aspect")
    assert "kept, rule, reason and status disagree for 1 pairs: ['k05']" in found(finished)


def test_a_group_on_two_sides(finished):
    ledger(finished, "k01", duplicate_group=f"{2:016x}")
    assert found(finished) == f"ledger: duplicate group {2:016x} is on 2 sides of the split"


def test_a_key_in_two_shards(finished):
    content = json.loads((finished / "manifest.json").read_text())
    twin = dict(next(shard for shard in content["shards"] if shard["path"] == SHARD))
    twin["path"] = "shards/train/000007.tar"
    for end in (".tar", ".parquet", "_stats.json"):
        (finished / f"shards/train/000007{end}").write_bytes(
            (finished / f"shards/train/000001{end}").read_bytes()
        )
    edit(finished / "manifest.json", shards=[*content["shards"], twin])
    assert f"000007.tar: k10 is in {SHARD} as well" in found(finished)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("shards/train/000001_stats.json", f"{SHARD}: 000001_stats.json is damaged"),
        ("shards/train/000001.parquet", f"{SHARD}: its table 000001.parquet cannot be read"),
        ("manifest.json", "manifest.json: damaged"),
        ("funnel.json", "funnel.json: missing or damaged"),
        ("ledger/part-00001.parquet", "ledger/part-00001.parquet: damaged"),
        ("removed.json", "removed.json is damaged; fetch it from a backup"),
    ],
)
def test_half_a_file_is_one_problem(finished, name, line):
    sets = {name: [] for name in ("keys", "urls", "sha256", "records")}
    (finished / "removed.json").write_text(json.dumps(sets | {"pending": False}))
    assert found(finished) == ""
    cut(finished / name)
    [problem] = found(finished).splitlines()
    assert line in problem


def test_pages_of_a_table_that_were_written_over(finished):
    path = finished / "ledger/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[4:2_000] = bytes(1_996)
    path.write_bytes(data)
    assert found(finished).startswith("ledger/part-00000.parquet: damaged")


def test_a_bit_of_any_file_is_found_where_all_are_listed(finished):
    (finished / "annotations").mkdir()
    (finished / "annotations/parts.json").write_text("[]")  # as an earlier release wrote it
    assert found(finished) == ""
    write_table(finished / "annotations/part-00000.parquet", pa.table({"key": ["k00"]}))
    checksums.write(finished)
    assert found(finished) == ""
    for path in [path for path in finished.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            data = bytearray(whole)
            data[place] ^= 1
            path.unlink()  # so that it is another file
            path.write_bytes(data)
            assert found(finished), f"byte {place} of {path}"
            path.unlink()
            path.write_bytes(whole)
    assert found(finished) == ""


def test_the_other_stages_are_checked_too(finished, capsys, monkeypatch):
    for stage in ("finetune", "evaluate", "compare"):
        write_certified(finished.parent / stage / "deep/a.json", {"a": 1})
        checksums.write(finished.parent / stage)
    monkeypatch.setattr(sys, "argv", ["verify", str(finished.parent)])
    with pytest.raises(SystemExit, match="0"):
        verify.main()
    out = capsys.readouterr().out
    assert "finetune  1 files, 0.0 MB, 0 problems" in out
    edit(finished.parent / "evaluate/deep/a.json", a=2)
    (finished.parent / "finetune/checksums.json").unlink()
    edit(finished.parent / "finetune/deep/a.json", a=2)
    with pytest.raises(SystemExit, match="1"):
        verify.main()
    out = capsys.readouterr().out
    assert "evaluate/deep/a.json: " in out
    assert "compare   1 files, 0.0 MB, 0 problems" in out
    assert "finetune/deep/a.json: damaged\n" in out  # by its own checksum
    assert "finetune  no checksums.json: of an earlier release, or interrupted, 1 problems" in out
    assert "  python -m evaluate run.name=done" in out


def test_a_training_on_another_runs_curation(finished, capsys, monkeypatch):
    trained = finished.parent.with_name("trained") / "finetune"
    write_text(trained / "config.yaml", "data: {run: done}")
    write_certified(trained / "checkpoints/step-1/state.json", {"step": 1})
    checksums.write(trained)
    monkeypatch.chdir(finished.parents[2])
    for run, code in (("trained", 0), ("runs/trained", 0), ("trained", 1)):
        if code:
            edit(trained / "checkpoints/step-1/state.json", step=2)
        monkeypatch.setattr(sys, "argv", ["verify", run])
        with pytest.raises(SystemExit) as left:
            verify.main()
        assert left.value.code == code
        said = capsys.readouterr().out.splitlines()
        assert said[0] == (
            "curate    of this training is runs/done/curate; to check it, type: "
            "python -m curate.verify done"
        )
        assert f"finetune  2 files, 0.0 MB, {code} problems" in said
    monkeypatch.chdir(trained.parent)
    monkeypatch.setattr(sys, "argv", ["verify", "."])
    with pytest.raises(SystemExit):
        verify.main()
    assert f"curate    of this training is {finished};" in capsys.readouterr().out


def test_unfinished_and_interrupted_runs(finished):
    sets = {name: [] for name in ("keys", "urls", "sha256", "records")}
    (finished / "removed.json").write_text(json.dumps(sets | {"pending": True}))
    with pytest.raises(UserError, match=r"interrupted.*python -m curate\.remove"):
        found(finished)
    (finished / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished curation"):
        found(finished)


def test_exit_codes(finished):
    def run(*arguments):
        command = [sys.executable, "-m", "curate.verify", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    sound = run(str(finished.parent))
    assert sound.returncode == 0
    assert "4 shards, 21 samples, 0 problems" in sound.stdout
    (finished / SHARD).unlink()
    broken = run(str(finished.parent))
    assert broken.returncode == 1
    assert f"{SHARD}: missing\n" in broken.stdout
    assert "never removed.json); to write it again, type:\n  python -m curate " in broken.stdout
    cut(finished / "manifest.json")
    assert "0 shards, 0 samples, 1 problems" in run(str(finished.parent)).stdout
    wrong = run("no-such-run")
    assert wrong.returncode == 2
    assert "error: no-such-run is no curated run" in wrong.stderr
    assert "Traceback" not in wrong.stderr

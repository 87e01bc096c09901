"""The command ``python -m curate.diff``: its files, its lines, and what it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from curate import diff, remove
from curate.report.diff import pictures, results, sections
from curate.run import checksums, cli, removals
from curate.run.locks import locked
from curate.verify import stage_problems

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(finished, monkeypatch):
    """The runs ``done`` and ``later`` in ``runs/`` of the working directory; in the second k05 is dropped."""
    curate_dir = finished.parents[1] / "later" / "curate"
    shutil.copytree(finished, curate_dir)
    part = curate_dir / "ledger/part-00000.parquet"
    rows = pd.read_parquet(part)
    gone = ["kept", "status", "rule", "reason", "split", "shard"]
    rows.loc[rows["key"] == "k05", gone] = [
        False,
        "dropped",
        "clip_similarity",
        "clip_similarity < 0.31",
        "",
        "",
    ]
    rows.to_parquet(part, index=False)
    monkeypatch.chdir(finished.parents[2])
    return finished, curate_dir


@pytest.fixture
def command(monkeypatch, capsys):
    """Type the command; gives its exit code, output and error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["diff", *map(str, arguments)])
        try:
            cli.run(diff.main)
            code = 0
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_first_line_says_what_changed_and_the_files_are_there(runs, command):
    code, out, err = command("done", "later")
    assert (code, err) == (0, "")
    first, second, *rest = out.splitlines()
    assert first == "the same 25 pairs, 1 changed verdict (now dropped for clip_similarity)"
    assert second == "kept 22 → 21 (−1), images: train 19 → 18, val 2, test 0"
    assert any(
        line.startswith("clip_similarity") and "1 → 2" in line and "+1" in line for line in rest
    )
    folder = runs[1].parent / "diff" / "done"
    assert rest[-1] == f"report  {Path('runs/later/diff/done/report.html')}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "changes.parquet",
        "diff.json",
        "report.html",
    ]
    assert list(checksums.problems(folder.parent)) == list(stage_problems(folder.parent)) == []
    table = pd.read_parquet(folder / "changes.parquet")
    assert table[["change", "key_now", "rule_before", "rule_now"]].to_numpy().tolist() == [
        ["verdict", "k05", "kept", "clip_similarity"]
    ]
    stored = json.loads((folder / "diff.json").read_text())
    assert stored["changes"]["verdict"] == {"pairs": 1, "pictures": 1}
    assert stored["before"]["name"] == "done"


def test_the_same_command_gives_the_same_bytes(runs, command):
    command(*(folder.parent for folder in runs))
    folder = runs[1].parent / "diff" / "done"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / ".report.html.1.part").write_text("of a killed one")
    command(*(folder.parent for folder in runs))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_pages_are_made_from_the_stored_comparison(runs, command):
    command("done", "later")
    found = results.load(diff.folder_of(*runs) / results.FILE)
    shown = pictures.pictures(found, *runs)
    [own] = re.findall(
        r"<main>(.*)</main>", (diff.folder_of(*runs) / "report.html").read_text(), re.DOTALL
    )
    again = sections.sections(found, shown)
    assert len(again) == own.count("<section")
    assert all(str(section.body) in own for section in again)


def test_a_run_may_be_named_by_its_folders(runs, command):
    assert command("runs/done", "runs/later/curate")[0] == 0
    assert (runs[1].parent / "diff/done/report.html").is_file()


def test_the_other_direction_mirrors_it(runs, command):
    _, out, _ = command("later", "done")
    assert out.startswith("the same 25 pairs, 1 changed verdict (now kept)\nkept 21 → 22 (+1)")
    assert (runs[0].parent / "diff/later/report.html").is_file()


def test_a_run_of_that_name_elsewhere_has_a_folder_of_its_own(runs, command, tmp_path):
    other = tmp_path / "elsewhere" / "done"
    shutil.copytree(runs[0].parent, other)
    for before in ("done", other):
        assert command(before, "later")[0] == 0
    first, second = sorted(
        path.name for path in (runs[1].parent / "diff").iterdir() if path.is_dir()
    )
    assert first == "done"
    assert second.startswith("done-")


def test_what_is_typed_wrongly(runs, command):
    (runs[0].parents[1] / "trained" / "finetune" / "checkpoints").mkdir(parents=True)
    (runs[0].parents[1] / "trained/finetune/config.yaml").write_text("data: {run: done}\n")
    (runs[0].parents[1] / "half" / "curate" / "annotations").mkdir(parents=True)
    before = sorted(Path("runs").rglob("*"))
    for arguments, says in (
        (
            [],
            "a comparison takes two runs, not 0; runs holds done, later. Type: python -m curate.diff RUN_A RUN_B",
        ),
        (["done"], "a comparison takes two runs, not 1"),
        (["done", "later", "done"], "a comparison takes two runs, not 3"),
        (["done", "runs/done"], "done and runs/done are the same run"),
        (["done", "nope"], "nope is no curated run"),
        (
            ["run.name=done", "later"],
            "Type: python -m curate.diff RUN_A RUN_B with done as one of them",
        ),
        (["done", "clip=starter"], "this command has no keys"),
        (
            ["done", "trained"],
            "trained on the curation of another run, done; compare that: type done",
        ),
        (
            ["done", "half"],
            "runs/half/curate holds no finished curation; type: python -m curate run.name=half",
        ),
        (["half", "done"], "holds no finished curation"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("error: "), err
        assert says in err, (arguments, err)
    after = [path for path in sorted(Path("runs").rglob("*")) if path.name != ".lock"]
    assert after == before


def test_what_is_damaged_or_interrupted_is_refused(runs, command):
    removals.note(runs[0], "keys", {"k11"}, "0" * 64)
    assert "was interrupted, so ledger and shards may disagree" in command("done", "later")[2]
    (runs[0] / "removed.json").unlink()
    part = runs[1] / "ledger/part-00001.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    code, _, err = command("done", "later")
    assert (code, "part-00001.parquet is damaged" in err) == (2, True)
    part.write_bytes(whole)
    (runs[1] / "manifest.json").write_text("{")
    assert "manifest.json is damaged; type: python -m curate" in command("done", "later")[2]


def test_a_run_without_captions_in_its_ledger_is_refused(runs, command):
    for part in (runs[1] / "ledger").iterdir():
        pd.read_parquet(part).drop(columns="caption").to_parquet(part, index=False)
    code, _, err = command("done", "later")
    assert (code, "has no column caption, so there is nothing to compare" in err) == (2, True)


def test_an_earlier_version_lacks_columns_and_that_is_said(runs, command):
    lacking = ["sha256", "phash_mirrored", "rule", "copy_group", "clip_model"]
    for part in (runs[0] / "ledger").iterdir():
        pd.read_parquet(part).drop(columns=lacking, errors="ignore").to_parquet(part, index=False)
    for name in ("funnel.json", "config.yaml"):
        (runs[0] / name).unlink(missing_ok=True)
    code, out, _ = command("done", "later")
    assert code == 0
    assert out.startswith(
        "the same 25 pairs, 1 changed verdict (now dropped for clip_similarity)\n"
    )
    for said in (
        "note: not compared: whether pictures were replaced or renamed; whether similarities are of the same CLIP",
        "note: keep rates of runs/done are left out, because it has no funnel.json",
        "note: settings are not compared, because runs/done/curate/config.yaml is missing or damaged",
    ):
        assert said in out


def test_a_run_that_is_being_curated_is_busy(runs, command):
    with locked(runs[1]):
        code, _, err = command("done", "later")
    assert (code, "another process is at work" in err) == (75, True)


def test_a_removal_names_the_comparisons_that_may_show_the_picture(
    runs, command, monkeypatch, capsys
):
    command("done", "later")
    Path("list.txt").write_text("k11\n")
    monkeypatch.setattr(sys, "argv", ["remove", "done", "--keys", "list.txt"])
    remove.main()
    assert "may still show them; delete: runs/later/diff/done" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["remove", "later", "--keys", "list.txt"])
    remove.main()
    assert "may still show them; delete: runs/later/diff" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["nope", "done"], ["done"]])
def test_help_and_mistakes_import_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys; from curate import diff; from curate.run import cli\n"
        "try: cli.run(diff.main)\n"
        "except SystemExit as left: print(left.code, [m for m in ('pandas', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == ("0 []" if arguments == ["--help"] else "2 []")

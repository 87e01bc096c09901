"""The command: its arguments, files and exit codes; and the page, on which a caption stays text."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import pytest

from curate.run import checksums, cli
from curate.run.locks import locked
from evaluate import compare, comparison
from evaluate.judged_runs.judged import open_judged
from evaluate.outputs import compare_page
from tests.evaluate.conftest import HOSTILE
from tests.evaluate.planted import Planted, rewrite

KEYS = [f"val-{i:03d}" for i in range(40)]


@pytest.fixture
def runs(tmp_path, results) -> Planted:
    found = Planted(tmp_path, results)
    found.curate("data")
    return found


@pytest.fixture
def command(monkeypatch, capsys, runs):
    """Type the command; gives its exit code, output and error."""
    monkeypatch.chdir(runs.root.parent)

    def run(*arguments, root=True):
        given = [*arguments, *([f"run.root={runs.root}"] if root else [])]
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, given)])
        with pytest.raises(SystemExit) as left:
            cli.run(compare.main)
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_two_runs_are_compared(runs, command):
    runs.run("slow", -0.20, seed=1, drawn=KEYS)
    runs.run("fast", -0.23, seed=2, drawn=KEYS, finetune={"optim": {"lr": 3e-4}})
    code, out, err = command("slow", "fast")
    assert (code, err) == (0, "")
    assert "compare fast with slow: 40 held-out pictures (val) in 40 groups in common" in out
    assert re.search(
        r"metric  better +Held-out loss: -2\.9 points \[-3\.\d, -2\.\d\] \(p < 0\.0001, corrected\)",
        out,
    )
    folder = runs.root / "slow" / "compare"
    assert f"report  {folder / 'fast' / 'report.html'}" in out
    stored = json.loads((folder / "fast" / "compare.json").read_text())
    assert [side["name"] for side in stored["runs"]] == ["slow", "fast"]
    assert stored["configuration"] == {"optim.lr": [1e-4, 3e-4]}
    assert list(checksums.problems(folder)) == []
    page = (folder / "fast" / "report.html").read_text()
    images = [attrs for tag, attrs in Elements(page).found if tag == "img"]
    moved = len(stored["pairs"][0]["moved"])
    assert moved >= 8
    assert len(images) == 3 * moved
    assert all(attrs["src"].startswith("data:image/webp;base64,") for attrs in images)
    assert "optim.lr" in page


def test_the_same_command_gives_the_same_bytes(runs, command):
    runs.run("a", seed=1)
    runs.run("b", seed=2)
    command("a", "b")
    folder = runs.root / "a" / "compare" / "b"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command("a", "b")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {"compare.json", "report.html"}


def test_several_runs_and_folders(runs, command):
    folders = [runs.run(name, seed=seed) for seed, name in enumerate("abc")]
    code, out, _ = command(*folders, root=False)
    assert code == 0
    assert "compare b, c with a" in out
    assert (runs.root / "a" / "compare" / "b,c" / "report.html").is_file()


def test_a_run_below_another_root_does_not_take_the_place_of_its_namesake(runs, tmp_path):
    a, b = runs.run("a"), runs.run("b")
    elsewhere = tmp_path / "elsewhere" / "b"
    elsewhere.parent.mkdir()
    (elsewhere).symlink_to(b)
    other = Planted(tmp_path / "third", runs.found)
    other.curate("data")
    names = {
        compare.folder_of([open_judged(a), open_judged(run)]).name for run in (b, other.run("b"))
    }
    assert len(names) == 2
    assert "b" in names
    many = [open_judged(a)] * 60
    assert len(compare.folder_of(many).name) <= 120


def test_too_few_pictures_end_with_3(runs, command):
    runs.run("a", keys={"val": KEYS[:31]})
    runs.run("b", -0.5)
    code, out, _ = command("a", "b")
    assert code == 3
    assert "missing Held-out loss: not measured, only 31 groups of pictures in common" in out
    assert "not decidable" in out
    assert "was not measured: only 31 groups" in (runs.root / "a/compare/b/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "a comparison takes two or more runs, not 0"),
        (["a"], "holds a, b. Type: python -m evaluate.compare A B"),
        (["a", "c"], "c is no judged run"),
        (["a", "a"], "a and a are the same run"),
        (["a", "b", "grid.bins=10"], "there is no key grid.bins; the only key is run.root=FOLDER"),
    ],
)
def test_what_is_typed_wrongly(runs, command, arguments, says):
    runs.run("a")
    runs.run("b")
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert not (runs.root / "a" / "compare").exists()


def test_runs_that_cannot_be_compared_end_with_2_and_leave_nothing(runs, command):
    runs.run("a")
    runs.run("b", settings={"grid": {"draws": 9}})
    code, _, err = command("a", "b")
    assert code == 2
    assert "grid.draws is 2 in a and 9 in b" in err
    assert not (runs.root / "a" / "compare").exists()


def test_the_names_of_a_sweep_hold_an_equals_sign(runs, command):
    runs.run("x_optim.lr=1e-4")
    runs.run("x_optim.lr=5e-5")
    assert command("x_optim.lr=1e-4", "x_optim.lr=5e-5")[0] == 0


def test_a_run_that_is_being_judged_is_busy(runs, command):
    runs.run("a")
    runs.run("b")
    with locked(runs.root / "b" / "evaluate"):
        code, _, err = command("a", "b")
    assert code == 75
    assert "another process is at work" in err


def test_mistakes_import_nothing_heavy():
    """Of the modules that the command imports before it has refused what it can."""
    import subprocess

    script = (
        "import sys, evaluate.compare, evaluate.judged_runs.judged; "
        "print([m for m in ('torch', 'diffusers', 'scipy', 'pandas', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_hostile_caption_and_name_stay_text(runs, command):
    rewrite(runs.root / "data/curate", "val", lambda rows: rows.assign(caption=HOSTILE))
    runs.run("a", -0.1, seed=1, drawn=KEYS)
    runs.run("<b onload=x>", -0.2, seed=2, finetune={"optim": {"lr": HOSTILE}})
    assert command("a", "<b onload=x>")[0] == 0
    page = (runs.root / "a" / "compare" / "<b onload=x>" / "report.html").read_text()
    elements = Elements(page).found
    assert "script" not in {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attrs in elements for name in attrs)
    assert any(HOSTILE in attrs.get("alt", "") for tag, attrs in elements if tag == "img")
    assert "not drawn" in page  # by the second run


def test_the_page_says_what_holds(runs):
    first = open_judged(runs.run("a", -0.1, seed=1))
    better = open_judged(runs.run("b", -0.2, seed=2, origin={"base": "x" * 64}))
    found = comparison.compare([first, better], comparison.refuse([first, better]))
    real = {moved.key: _blank() for moved in found.pairs[0].moved}
    page = compare_page.render(found, real, {key: [None, None] for key in real})
    assert '<div class="banner good">' in page
    assert "The runs have different base models. All losses are in units of the base of a." in page
    anchors = [attrs["id"] for tag, attrs in Elements(page).found if tag == "section"]
    assert anchors == [
        "result",
        "pair-1",
        "moved-1",
        "trainings",
        "compared",
        "not-compared",
        "glossary",
        "provenance",
    ]
    assert "no difference shown" in page.lower()


def _blank():
    from PIL import Image

    return Image.new("RGB", (16, 16))


def test_better_in_loss_and_worse_elsewhere_is_no_green_headline(runs):
    import numpy as np

    values = np.random.default_rng(0).normal(0.5, 0.1, 40)
    first = open_judged(
        runs.run("a", -0.1, seed=1, scores={"clip_kept": ("val", KEYS, values, "")})
    )
    lower = values - 0.2 + np.random.default_rng(1).normal(0, 0.01, 40)
    other = open_judged(runs.run("b", -0.2, seed=2, scores={"clip_kept": ("val", KEYS, lower, "")}))
    found = comparison.compare([first, other], comparison.refuse([first, other]))
    real = {moved.key: _blank() for moved in found.pairs[0].moved}
    page = compare_page.render(found, real, {key: [None, None] for key in real})
    assert '<div class="banner warn">' in page
    assert "b: better in loss, worse in something else" in page
    assert "Worse in: prompt following, kept." in page

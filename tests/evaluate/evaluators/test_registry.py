"""Adding an evaluator is enough for its metric to be in every output and in the gate."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markupsafe import Markup

import finetune.cache.encode
from curate.report.page import Section
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from evaluate import evaluation, evaluators, run
from evaluate.config import GateRule
from evaluate.evaluators import Description, Evaluator
from evaluate.results import Metric
from tests.evaluate.test_run import config

ROOT = Path(__file__).resolve().parents[3]


def test_a_registered_evaluator_is_in_every_output(make_run, clip_dir, monkeypatch):
    dummy = Evaluator(
        metrics={
            "dummy": Description("Dummy title", "Dummy meaning.", "higher", tile="dummy tile"),
            "plain": Description("Plain title", "Plain meaning.", fraction=False),
            "absent": Description("Absent title", "Absent meaning."),
        },
        measure=lambda e: [
            ("dummy", e.change("val", 1)),
            ("plain", Metric(value=7.125, low=7.0, high=7.25, n=9)),
            ("absent", Metric(reason="dummy why")),
        ],
        sections=lambda found: [Section("Dummy", "dummy", Markup("dummy body"))],
    )
    with pytest.raises(UserError, match="metric=dummy"):
        GateRule(metric="dummy", op="<", threshold=5.0)
    monkeypatch.setitem(evaluators.registry(), "dummy", dummy)
    rule = GateRule(metric="dummy", op="<", threshold=5.0)
    asked = config(make_run(), clip_dir, rule)
    lines: list[str] = []
    assert run.evaluate_run(asked, lines.append) == 0
    folder = asked.run.folder / "evaluate"
    report = json.loads((folder / "report.json").read_bytes())
    assert report["metrics"]["dummy"] == report["checkpoints"][1]["val"]
    assert report["checks"][0]["status"] == "passed"
    assert any(line.startswith("gate    passed    Dummy title: ") for line in lines)
    html = (folder / "report.html").read_text()
    for shown in ("Dummy title", "Dummy meaning.", "dummy tile", "dummy body", "dummy why"):
        assert shown in html
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "Plain title +7.125 [+7.000, +7.250] 9" in text
    assert "| Absent title | not measured: dummy why |" in (folder / "summary.md").read_text()


def test_the_held_out_shards_are_read_once(make_run, clip_dir, monkeypatch):
    asked = config(make_run(), clip_dir)
    read, real = [], evaluation.read_shard

    def counted(path):
        read.append(path)
        return real(path)

    for module in (evaluation, finetune.cache.encode):
        monkeypatch.setattr(module, "read_shard", counted)
    run.evaluate_run(asked, lambda _: None)
    folder = asked.run.folder / "curate"
    held_out = {folder / shard.path for shard in read_manifest(folder).shards_of("val")}
    assert sorted(path for path in read if path in held_out) == sorted(held_out)


@pytest.mark.parametrize("yielded", [[], ["dummy", "dummy"], ["dummy", "other"]])
def test_an_evaluator_yields_what_it_declares_once(monkeypatch, yielded):
    wrong = Evaluator(
        {"dummy": Description("", "")}, measure=lambda _: [(name, Metric()) for name in yielded]
    )
    monkeypatch.setattr(evaluators, "registry", lambda: {"mine": wrong})
    with pytest.raises(RuntimeError, match=r"evaluators\.mine declares \['dummy'\] and yields"):
        dict(evaluators.measure(None))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A factory of modules beside the evaluators."""
    monkeypatch.setattr(evaluators, "__path__", [*evaluators.__path__, str(tmp_path)])
    added = []

    def add(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        added.append(f"{evaluators.__name__}.{name}")

    evaluators.registry.cache_clear()
    yield add
    evaluators.registry.cache_clear()
    for name in added:
        sys.modules.pop(name, None)
        vars(evaluators).pop(name.rpartition(".")[2], None)


ONE = """
from evaluate.evaluators import Description, Evaluator
EVALUATOR = Evaluator({%r: Description("", "")}, measure=lambda _: [])
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"evaluators\.zz_mine defines no EVALUATOR"),
        (ONE % "verdict", r"evaluators\.zz_mine names a metric 'verdict', as does the verdict"),
        (ONE % "clip_base", r"zz_mine names a metric 'clip_base', as does .*prompt_following"),
    ],
)
def test_a_module_that_does_not_fit_is_named(folder, text, message):
    folder("zz_mine", text)
    with pytest.raises(RuntimeError, match=message):
        evaluators.registry()


def test_private_modules_are_no_evaluators(folder):
    folder("_shared", "")
    folder("zz_mine", ONE % "mine")
    assert "mine" in evaluators.descriptions()
    assert "_shared" not in evaluators.registry()


def test_names_are_known_without_heavy_imports():
    code = (
        "import sys; from evaluate import evaluators; evaluators.registry(); "
        "heavy = {'torch', 'PIL', 'pandas', 'diffusers', 'matplotlib', 'open_clip'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metrics_have_names_of_their_own():
    names = [name for evaluator in evaluators.in_order().values() for name in evaluator.metrics]
    assert len(names) == len(set(names))
    assert names[0] == "heldout_change"

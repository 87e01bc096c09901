"""Run one evaluation: measure, verdict, gate, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from curate.run import checksums, tracking
from curate.run.files import write_text
from curate.run.manifest import read_funnel
from curate.run.provenance import provenance, redacted
from evaluate import advice, evaluators, gate, judging_clip, results, verdict
from evaluate.config import EvaluateConfig
from evaluate.evaluation import Evaluation
from evaluate.evaluators.captions import captions_hardly_matter
from evaluate.judged_runs import against
from evaluate.measure.grid import by_bin
from evaluate.outputs import data_results, headline, items, report, summary
from evaluate.outputs.glossary import title
from evaluate.results import (
    NOT_MEASURED,
    CheckpointResult,
    Look,
    Metric,
    Results,
    Verdict,
)
from finetune import start
from finetune.curve import HeldoutCurve
from finetune.drawing import sampling
from finetune.npz import DamagedArrays
from finetune.rules import Word


def evaluate_run(config: EvaluateConfig, say: Callable[[str], None]) -> int:
    """Judge the run, write everything under ``evaluate/``, and return the exit code.

    Args:
        config: the whole configuration.
        say: prints a line for the user.

    Raises:
        UserError: the run has no held-out pictures, was trained on other data or another base model, or
            cannot be compared with the run of ``gate.against``.
    """
    evaluation = Evaluation(config, against.opened(config.gate.against, config))
    evaluation.refuse_other_origin()
    sampling.refuse(config.sampler, evaluation.run.model(evaluation.device))
    checksums.withdraw(evaluation.folder)
    metrics = dict(evaluators.measure(evaluation))
    found = conclude(config, evaluation, metrics)
    write(found, evaluation)
    tracking.write(config.tracker, evaluation.folder, results.points(found))
    announce(found, evaluation.folder, say)
    return gate.exit_code(config.gate, found.gate)


def conclude(config: EvaluateConfig, evaluation: Evaluation, metrics: dict[str, Metric]) -> Results:
    """The verdict, the gate and all that the report shows."""
    evidence, steps = evaluation.evidence, evaluation.table.steps
    word = verdict.judge(evidence)
    judged = Verdict(
        word=str(word),
        sentence=verdict.sentence(evidence, steps, evaluation.kept, evaluation.vetoes),
        advice=_advice(config, evaluation, metrics),
        best=steps[evidence.best],
        kept=steps[evaluation.kept],
        exported=steps[evaluation.exported],
        last=steps[evidence.last],
    )
    instruments = evaluators.instruments(config)
    if evaluation.against:
        instruments |= evaluation.against.instrument(metrics[against.METRIC].on)
    checks = gate.check_all(config.gate, metrics, word, instruments)
    return Results(
        schema_version=results.SCHEMA_VERSION,
        run=config.run.folder.name,
        verdict=judged,
        findings=headline.findings(
            judged, metrics, checks, evaluation.against.run.name if evaluation.against else ""
        ),
        gate=gate.decide(checks),
        checks=checks,
        metrics=metrics,
        checkpoints=_checkpoints(evaluation),
        looks=_looks(evaluation),
        pictures=evaluation.pictures(),
        copying=evaluation.own_pictures.result(),
        slices=data_results.slices(evaluation),
        reconsider=data_results.doubts(evaluation),
        provenance={
            **provenance(),
            "evaluate": redacted(asdict(config)),
            "finetune": redacted(asdict(evaluation.run.config)),
            "measured": items.digests(evaluation),
            "start": start.origin_of(evaluation.run.finetune_dir),
            **_scale(evaluation),
            "curate": {
                **asdict(evaluation.manifest)["fingerprint"],
                "clip": judging_clip.label_of_curation(evaluation.curate_dir),
            },
        },
        retention=evaluation.retention.result(evaluation.kept) if evaluation.retention else None,
    )


def _scale(evaluation: Evaluation) -> dict[str, Any]:
    """How the scale of the export was chosen; nothing where it is as it was trained."""
    found = evaluation.run.export_scale()
    return {"scale": asdict(found)} if found else {}


def _checkpoints(evaluation: Evaluation) -> tuple[CheckpointResult, ...]:
    table, evidence = evaluation.table, evaluation.evidence
    val_bins = by_bin(table.val, table.groups)
    train_probe_bins = by_bin(table.train_probe, table.train_probe_groups)

    def finite(values: Any) -> tuple[float | None, ...]:
        return tuple(float(value) if np.isfinite(value) else None for value in values)

    return tuple(
        CheckpointResult(
            step=step,
            samples_seen=table.samples_seen[row],
            val=Metric.of(evidence.change("val", row, 0), "val"),
            train_probe=Metric.of(evidence.change("train_probe", row, 0), "train_probe"),
            val_bins=finite(val_bins[row]),
            train_probe_bins=finite(train_probe_bins[row]),
        )
        for row, step in enumerate(table.steps)
    )


def _looks(evaluation: Evaluation) -> tuple[Look, ...]:
    """Every evaluation of the training; none if it measured none, or ``heldout.npz`` is damaged.

    Nor where checkpoints are judged at another scale than training measured them.
    """
    if evaluation.run.exported().scale != 1:
        return ()
    try:
        curve = HeldoutCurve.load(evaluation.run.finetune_dir / "heldout.npz")
    except (FileNotFoundError, DamagedArrays):
        return ()
    if len(curve.steps) < 2:
        return ()
    evidence = curve.evidence(len(curve.steps) - 1)
    return tuple(
        Look(
            step,
            samples_seen,
            Metric.of(evidence.change("val", row, 0), "val"),
            Metric.of(evidence.change("train_probe", row, 0), "train_probe"),
        )
        for row, (step, samples_seen) in enumerate(
            zip(curve.steps, curve.samples_seen, strict=True)
        )
    )


# Anchors of the sections that say what the base could do better than the checkpoint.
_OF_THE_BASE = ("retention", "prompts", "distribution")


def _advice(config: EvaluateConfig, evaluation: Evaluation, metrics: Mapping[str, Metric]) -> str:
    """What to do next; of a training that has not ended, that first."""
    if reached := evaluation.run.unfinished():
        return (
            f"The training has not ended ({reached}): type the training command again, which goes on, and judge "
            "again after that."
        )
    trained = evaluation.run.config
    # Weights that diverged hear no caption, however right these are.
    if captions_hardly_matter(metrics) and verdict.judge(evaluation.evidence) != Word.DIVERGED:
        return advice.about_captions(trained)
    costly = any(
        finding.state == "bad" and finding.section in _OF_THE_BASE
        for finding in evaluators.findings(metrics)
    )
    said = (
        advice.against_copying(trained)
        if evaluation.vetoes
        else advice.advise(evaluation.evidence, trained, config.grid.items, costly)
    )
    if evaluation.kept == 0:
        said = f"Go on with the base, not with {evaluation.run.export_dir}. {said}"
    if evaluation.kept not in (0, evaluation.exported):
        step = evaluation.table.steps[evaluation.kept]
        said += f" {advice.export_kept(evaluation.run.run_dir, step)}"
    return said


def write(found: Results, evaluation: Evaluation) -> None:
    """Write every file of the evaluation's folder; losses and pictures are there already, unused losses go."""
    folder = evaluation.folder
    funnel = read_funnel(evaluation.curate_dir) or None
    real = {picture.key: evaluation.real_picture(picture.key) for picture in found.pictures}
    evaluation.grid.store.prune()
    results.save(found, folder / "report.json")
    data_results.write_list(found, folder)
    write_text(folder / "summary.md", summary.markdown(found))
    write_text(folder / "junit.xml", summary.junit(found))
    write_text(folder / "samples.jsonl", items.lines(evaluation))
    write_text(folder / "report.html", report.render(found, folder, real, funnel))
    checksums.write(folder)


def announce(found: Results, folder: Path, say: Callable[[str], None]) -> None:
    """Result, trend and costs, the next step, every check and where the report is, in a line each."""
    say(f"verdict {found.verdict.word}")
    for finding in found.findings:
        say(f"{finding.part:7} {headline.WORDS[finding.state]}: {finding.text}")
    say(f"next    {found.verdict.advice}")
    for check in found.checks:
        rule = f"rule: {check.rule}" + (f"; {check.why}" if check.why else "")
        say(f"gate    {check.status:9} {title(check.metric)}: {check.measured} ({rule})")
    say(f"gate    {found.gate}")
    for reason, titles in headline.missing(found.metrics).items():
        say(f"missing {headline.joined(titles)}: {NOT_MEASURED}, {reason}")
    say(f"report  {folder / 'report.html'}")

"""The evaluation of one run, from its checkpoints to the report and the gate's exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from curate.clip.scorer import load_clip
from curate.measures.decode import decode
from curate.pack.shards import read_manifest, read_shard
from curate.pipeline.config import SMALLEST_JUDGED
from curate.run.files import write_text
from curate.run.provenance import provenance, redacted
from evaluate import advice, alignment, gate, grid, report, results, summary, verdict
from evaluate.config import EvaluateConfig
from evaluate.glossary import title
from evaluate.results import CheckpointResult, Metric, Picture, Results, Verdict
from evaluate.sampling import Prompt, Sampler
from finetune import doctor
from finetune.checkpoint import Checkpoint
from finetune.heldout import relative
from finetune.intervals import Bootstrap, detectable_change
from finetune.overfitting import Evidence
from finetune.run import FinetuneRun, load_run


@dataclass
class Judgement:
    """What the steps of one evaluation share."""

    config: EvaluateConfig
    run: FinetuneRun
    device: torch.device
    folder: Path
    bootstrap: Bootstrap
    table: grid.LossTable
    evidence: Evidence

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The checkpoint of a row of the table; None for the base, row 0."""
        return self.run.checkpoints()[row - 1] if row else None

    @property
    def exported(self) -> int:
        """The row whose weights the export holds: chosen while training, on a coarser grid."""
        return self.table.steps.index(self.run.exported().step)


def judge_run(config: EvaluateConfig, say: Callable[[str], None]) -> int:
    """Judge the run, write everything under ``evaluate/``, and return the exit code.

    Args:
        config: the whole configuration.
        say: prints a line for the user.
    """
    run = load_run(config.run.folder)
    device = torch.device(_device(config.device))
    refuse_other_origin(run, device)
    folder = config.run.folder / "evaluate"
    store = grid.LossStore(folder / "losses.npz")
    measured = grid.Grid(run, config.grid, store, device)
    table = measured.table()
    bootstrap = Bootstrap(config.resamples)
    evidence = Evidence(
        *(np.stack([relative(row, losses[0]) for row in losses]) for losses in (table.val, table.probe)),
        bootstrap=bootstrap,
    )  # fmt: skip
    job = Judgement(config, run, device, folder, bootstrap, table, evidence)
    metrics = _loss_metrics(job, measured)
    store.prune()
    pictures, clip = _pictures(job)
    found = _results(job, metrics | clip, pictures)
    _write(found, job)
    _print(found, folder, say)
    return gate.exit_code(config.gate, found.gate)


def refuse_other_origin(run: FinetuneRun, device: torch.device) -> None:
    """Data and base model must be those of the training: curated again, its pictures may be held out now.

    Raises:
        UserError: names which of the two is another one.
    """
    begun = run.checkpoints()[-1].state()["identity"]
    shards = {"shards": doctor.shards_digest(read_manifest(run.run_dir / "curate"))}
    doctor.refuse_change(run.finetune_dir, begun, shards)  # first: it costs no model
    doctor.refuse_change(run.finetune_dir, begun, {"weights": run.model(device).fingerprint()})


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _loss_metrics(job: Judgement, measured: grid.Grid) -> dict[str, Metric]:
    evidence = job.evidence
    kept, best, last = verdict.kept(evidence), evidence.best, evidence.last
    n = min(evidence.val.shape[1], evidence.train_probe.shape[1])
    changes = {
        "heldout_change": ("val", kept, 0),
        "exported_change": ("val", job.exported, 0),
        "heldout_change_last": ("val", last, 0),
        "heldout_since_best": ("val", last, best),
        "probe_change": ("train_probe", kept, 0),
    }
    if n < SMALLEST_JUDGED:
        few = Metric(n=n, reason=f"only {n} pictures on a side; at least {SMALLEST_JUDGED} needed")
        return dict.fromkeys((*changes, "detectable_change", "test_change"), few)
    found = {name: Metric.of(evidence.change(*which)) for name, which in changes.items()}
    shown_row = kept or last  # where the base is kept, what could be seen of the last one
    difference = evidence.val[shown_row] - evidence.val[0]
    found["detectable_change"] = Metric(value=detectable_change(difference), n=n)
    found["test_change"] = _test_change(job, measured)
    return found


def _test_change(job: Judgement, measured: grid.Grid) -> Metric:
    """The kept checkpoint on the split that selected nothing."""
    kept = job.checkpoint(verdict.kept(job.evidence))
    if kept is None:
        return Metric(reason="the base is kept, there is no checkpoint to test")
    losses = measured.test(kept)
    if losses is None or losses.shape[1] < SMALLEST_JUDGED:
        return Metric(reason=f"the split 'test' holds fewer than {SMALLEST_JUDGED} pictures")
    scores = [relative(row, losses[0]) for row in losses]
    return Metric.of(job.bootstrap.mean(scores[1] - scores[0]))


def _pictures(job: Judgement) -> tuple[tuple[Picture, ...], dict[str, Metric]]:
    """Same-seed pictures of base, kept and last, and what CLIP says of base and kept."""
    settings = job.config.samples
    model = job.run.model(job.device)
    sampler = Sampler(model, job.config.sampler, settings.seed, settings.batch_size)
    count = max(settings.rows, settings.clip_captions)
    captions = job.run.captions("val", job.config.grid.items, job.device)
    prompts = [Prompt(k, c) for k, c in zip(job.table.keys, captions, strict=True)][:count]

    def drawn(row: int, prompts: list[Prompt]) -> list[Path]:
        stored = job.checkpoint(row)
        return sampler.keep(
            job.folder / "samples" / label_of(job.table.steps[row]),
            prompts,
            grid.weights_sha256(stored),
            lambda: job.run.unet_at(stored, device=job.device),
        )

    kept, last = verdict.kept(job.evidence), job.evidence.last
    files = {row: drawn(row, prompts) for row in dict.fromkeys((0, kept))}
    files[last] = files.get(last) or drawn(last, prompts[: settings.rows])
    rows = tuple(
        Picture(
            prompt.key,
            prompt.caption,
            {
                label_of(job.table.steps[row]): str(paths[i].relative_to(job.folder))
                for row, paths in files.items()
            },
        )
        for i, prompt in enumerate(prompts[: settings.rows])
    )
    metrics = _alignment(job, prompts[: settings.clip_captions], files, kept)
    metrics["flat_pictures"] = alignment.count_flat([p for paths in files.values() for p in paths])
    return rows, metrics


def label_of(step: int) -> str:
    """How pictures of a step are labelled, in folders and in ``report.json``."""
    return f"step-{step:08d}" if step else "base"


def _alignment(
    job: Judgement, prompts: list[Prompt], files: dict[int, list[Path]], kept: int
) -> dict[str, Metric]:
    if kept == 0:
        return alignment.not_measured("the base is kept; there is nothing to compare it with")
    if len(prompts) < alignment.MIN_CAPTIONS:
        return alignment.not_measured(
            f"{len(prompts)} captions; at least {alignment.MIN_CAPTIONS} needed"
        )
    real = real_pictures(job.config.run.folder / "curate", {p.key for p in prompts})
    return alignment.measure(
        load_clip(job.config.clip, job.device),
        [prompt.caption for prompt in prompts],
        [real[prompt.key] for prompt in prompts],
        {label: files[row][: len(prompts)] for label, row in (("base", 0), ("kept", kept))},
        job.bootstrap,
    )


def real_pictures(curate_dir: Path, keys: set[str]) -> dict[str, Image.Image]:
    """The held-out pictures themselves, by key."""
    return {
        sample.key: decode(sample.image)
        for shard in read_manifest(curate_dir).shards_of("val")
        for sample in read_shard(curate_dir / shard.path)
        if sample.key in keys
    }


def _results(job: Judgement, metrics: dict[str, Metric], pictures: tuple[Picture, ...]) -> Results:
    evidence, steps = job.evidence, job.table.steps
    word = verdict.judge(evidence)
    checks = gate.check_all(job.config.gate, metrics, word)
    return Results(
        schema_version=results.SCHEMA_VERSION,
        run=job.config.run.name,
        verdict=Verdict(
            word=str(word),
            sentence=verdict.sentence(evidence, steps),
            advice=advice.advise(evidence, job.run.config, job.config.grid.items),
            best=steps[evidence.best],
            kept=steps[verdict.kept(evidence)],
            exported=steps[job.exported],
            last=steps[evidence.last],
        ),
        gate=gate.decide(checks),
        checks=checks,
        metrics=metrics,
        checkpoints=_checkpoints(job),
        pictures=pictures,
        provenance={
            **provenance(),
            "evaluate": redacted(asdict(job.config)),
            "finetune": redacted(asdict(job.run.config)),
            "curate": asdict(read_manifest(job.config.run.folder / "curate"))["fingerprint"],
        },
    )


def _checkpoints(job: Judgement) -> tuple[CheckpointResult, ...]:
    table = job.table
    bins = {
        split: grid.by_bin(losses) for split, losses in (("val", table.val), ("probe", table.probe))
    }

    def finite(values: Any) -> tuple[float | None, ...]:
        return tuple(float(value) if np.isfinite(value) else None for value in values)

    return tuple(
        CheckpointResult(
            step=step,
            samples_seen=table.samples_seen[row],
            val=Metric.of(job.evidence.change("val", row, 0)),
            probe=Metric.of(job.evidence.change("train_probe", row, 0)),
            val_bins=finite(bins["val"][row]),
            probe_bins=finite(bins["probe"][row]),
        )
        for row, step in enumerate(table.steps)
    )


def _write(found: Results, job: Judgement) -> None:
    curate_dir = job.config.run.folder / "curate"
    real = real_pictures(curate_dir, {picture.key for picture in found.pictures})
    funnel_path = curate_dir / "funnel.json"
    funnel = json.loads(funnel_path.read_bytes()) if funnel_path.is_file() else None
    results.save(found, job.folder / "report.json")
    write_text(job.folder / "summary.md", summary.markdown(found))
    write_text(job.folder / "junit.xml", summary.junit(found))
    write_text(job.folder / "report.html", report.render(found, job.folder, real, funnel))


def _print(found: Results, folder: Path, say: Callable[[str], None]) -> None:
    say(f"verdict {found.verdict.word}: {found.verdict.sentence}")
    say(f"next    {found.verdict.advice}")
    for check in found.checks:
        demanded = f"demanded: {check.rule}" + (f"; {check.why}" if check.why else "")
        say(f"gate    {check.status:9} {title(check.metric)}: {check.measured} ({demanded})")
    say(f"gate    {found.gate}")
    say(f"report  {folder / 'report.html'}")

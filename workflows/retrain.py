"""The command ``python -m workflows.retrain``: curate, fine-tune, judge and promote, once, if anything changed.

Any scheduler only has to start it. The same command again resumes what was interrupted and says "nothing to
do" where nothing changed; of two at once, one works.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from curate.run import cli, overrides
from curate.run.schema import to_dataclass
from workflows.retraining import apart, commands, held_out, promotion, registry, removals, unchanged
from workflows.retraining.config import RetrainConfig
from workflows.retraining.job import Job, opened
from workflows.retraining.outcome import Outcome, nothing_to_do, reported


def retrain(job: Job) -> Outcome:
    """Five steps, each of which is passed over where it is done already."""
    if not job.changes:
        job.settle()
        return nothing_to_do(job.series.root, job.series.name)
    job.begin()
    for name, do in (("curate", curate), ("finetune", finetune), ("evaluate", evaluate)):
        do(job)
        if job.config.until == name:
            return job.outcome("started", f"{job.record.run} is done up to {name}")
    decision = decide(job)
    promote(job, decision)
    return job.outcome(decision.outcome, decision.sentence)


def curate(job: Job) -> None:
    """Score, filter and pack each data set. What was removed stays out; what was held out stays held out."""
    for each in apart.in_turn(job):
        removals.take_over(job.series, each.run_dir)
        settings = held_out.settings(job.series)
        job.step(each.step, each.step, settings, run=each.run_dir.name)
        if not job.removed_meanwhile():  # else it is its turn again
            held_out.add(job.series, each.run_dir)
    job.compare_data()


def finetune(job: Job) -> None:
    """Train from the base model, or on from the promoted run; on several data sets by their weights."""
    job.examine_pictures()
    start = job.start()
    init = [f"method.init={start}"] if start else []
    job.step("finetune", "train", [*job.record.data(), *init], left=job.exported)


def evaluate(job: Job) -> None:
    """Judge against the base model and, on the same held-out pictures, against the promoted run."""
    other = job.record.compared_with
    job.step(
        "evaluate",
        "evaluate",
        [f"gate.against={other}"] if other else [],
        promotion.JUDGED,
        left=lambda: promotion.judged(job.run_dir),
    )


def decide(job: Job) -> promotion.Decision:
    """Ask the gate, whose rules are on what was exported."""
    return job.note(promotion.decide(promotion.judged(job.run_dir), job.record.compared_with))


def promote(job: Job, decision: promotion.Decision) -> None:
    """Point to the run where the gate lets it pass, and end it either way."""
    if decision.outcome == "promoted" and not job.series.has_ended(job.record.run, "promoted"):
        promotion.promote(job.series, job.record, "promoted")
    job.conclude(decision.outcome)


@hydra.main(version_base="1.3", config_path="../conf", config_name="retrain")
@cli.polite
def start(cfg: DictConfig) -> None:
    """Check all settings, retrain, and tell those who want to know."""
    config = to_dataclass(cfg, RetrainConfig)
    overrides.remember(commands.typed(), "retrain")  # those for its commands, too
    with reported(config) as report:
        settings, series = commands.of_command(config)
        registry.target(config.registry.mlflow, series)  # refuses a wrong one
        with opened(config, settings, series) as job:
            report.on(series)
            outcome = job.why() if config.why else retrain(job)
    report.say(outcome)
    sys.exit(outcome.exit_code(config.fail_on_reject))


def main() -> None:
    """Retrain, unless a quick look shows that nothing changed."""
    with cli.exit_codes():
        own, handed = commands.split(sys.argv[1:])
        if found := unchanged.look(sys.argv[1:]):
            nothing_to_do(found.root, found.series).say(as_json="json=true" in own)
            return
        commands.remember(sys.argv[1:], handed)
        sys.argv[1:] = own
        cli.run(start, "retrain", start_bare=False, flags=tuple(commands.FLAGS))


if __name__ == "__main__":
    main()

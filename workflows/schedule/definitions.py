"""What Dagster starts: the steps of each experiment as assets, a schedule and a sensor; the command decides everything."""

# Dagster is an extra.
# pyright: reportMissingImports=false

# No `from __future__ import annotations`: Dagster reads the types of `context` when a function is defined.
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from workflows.schedule import settings as from_environment
from workflows.schedule.command import DONE, FINAL, Reply, retrain
from workflows.schedule.launcher import at_work
from workflows.schedule.settings import Settings, name_of

STEPS = {
    "curate": "Score, filter, split and pack the pairs.",
    "finetune": "Train on them.",
    "evaluate": "Judge the checkpoints on held-out pictures, and against the promoted run.",
    "promote": "Replace the promoted run, or say why not.",
}
LOOK_S = 600  # of a sensor that is switched on in the UI
LAST = [*STEPS][-1]
UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status.value not in ("SUCCESS", "FAILURE", "CANCELED")
]
RETRIES, WAIT_S = 3, 60  # twice as long before each further one


def step(settings: Settings, experiment: str, name: str, before: str) -> dg.AssetsDefinition:
    """An asset that does the retraining up to a step; none, and so none after it, where nothing is to be done."""

    @dg.asset(
        name=name,
        key_prefix=name_of(experiment),
        deps=[dg.AssetKey([name_of(experiment), before])] if before else [],
        description=STEPS[name],
        output_required=False,
    )
    def run(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        with at_work(context.run.run_id):
            reply = retrain(settings, experiment, f"until={name}")
        context.log.info(reply.sentence)
        if reply.code in FINAL:
            raise dg.Failure(reply.sentence, facts(reply), allow_retries=False)
        if reply.code != DONE:
            # Not a retry_policy of the asset: by that, Dagster would also go on with what a person has ended.
            wait_s = WAIT_S * 2**context.retry_number
            raise dg.RetryRequested(RETRIES, wait_s) from dg.Failure(reply.sentence, facts(reply))
        if reply.outcome != "nothing_to_do":
            yield dg.MaterializeResult(metadata=facts(reply))

    return run


def facts(reply: Reply) -> dict[str, Any]:
    """What the command said, for Dagster to show beside a step."""
    shown = {key: value for key, value in reply.said.items() if value and key != "changes"}
    if changes := reply.said.get("changes"):
        shown["changes"] = dg.MetadataValue.md("\n".join(f"- {change}" for change in changes))
    return {"exit code": reply.code, **shown}


def ask(
    settings: Settings, experiment: str, instance: dg.DagsterInstance
) -> dg.RunRequest | dg.SkipReason:
    """Whether a retraining would start, in the command's words.

    One that Dagster has begun or waits to begin is enough: between its steps the command says that it would go on.

    Raises:
        Failure: it could not be said; the tick shows why.
    """
    filters = dg.RunsFilter(job_name=job_name(experiment), statuses=UNFINISHED)
    if begun := instance.get_runs(filters, limit=1):
        return dg.SkipReason(f"run {begun[0].run_id} is {begun[0].status.value.lower()}")
    reply = retrain(settings, experiment, f"until={LAST}", "--why")  # typed as the last step is
    if reply.outcome in ("nothing_to_do", "busy"):
        return dg.SkipReason(reply.sentence)
    if reply.code != DONE:
        raise dg.Failure(reply.sentence)
    return dg.RunRequest(run_key=key_of(reply))


def job_name(experiment: str) -> str:
    """Of its retrainings."""
    return f"retrain_{name_of(experiment)}"


def key_of(reply: Reply) -> str:
    """For Dagster to start what is asked for once, and a retraining that did not come to its end once a day."""
    asked = json.dumps([reply.said.get("current"), reply.said.get("changes")])
    return f"{datetime.now(UTC):%Y-%m-%d} {hashlib.sha256(asked.encode()).hexdigest()[:16]}"


def of(settings: Settings, experiment: str) -> dg.Definitions:
    """Assets, job, schedule and sensor of one experiment."""
    name = name_of(experiment)
    names = list(STEPS)
    assets = [
        step(settings, experiment, each, before)
        for before, each in zip(["", *names], names, strict=False)
    ]
    job = dg.define_asset_job(
        job_name(experiment),
        dg.AssetSelection.assets(*assets),
        description="Each step runs `python -m workflows.retrain` up to it; after a failure, only from there.",
    )

    @dg.schedule(
        name=f"at_times_{name}",
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Retrains at fixed times, if there is something new.",
    )
    def at_times(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return ask(settings, experiment, context.instance)

    looks = dg.DefaultSensorStatus.RUNNING if settings.look_s else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=f"when_new_{name}",
        job=job,
        minimum_interval_seconds=settings.look_s or LOOK_S,
        default_status=looks,
        description="Retrains as soon as there is something new.",
    )
    def when_new(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return ask(settings, experiment, context.instance)

    return dg.Definitions(assets=assets, jobs=[job], schedules=[at_times], sensors=[when_new])


def all_definitions(settings: Settings) -> dg.Definitions:
    """Of every experiment; their steps run in the run's own process, so that they end with it."""
    each = [of(settings, experiment) for experiment in settings.experiments]
    return dg.Definitions.merge(*each, dg.Definitions(executor=dg.in_process_executor))


defs = all_definitions(from_environment.read())

"""The schema of ``conf/retrain.yaml``, the settings of ``python -m workflows.retrain``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curate.run import datasets
from curate.run.config import RunFolder
from curate.run.schema import PATH, UserError, check, entries, register

STEPS = ("curate", "finetune", "evaluate", "promote")
STARTS = ("base", "promoted")
COMPARED = ("promoted", "base")
FINGERPRINTS = ("stat", "content")
EVENTS = ("all", "changes")


@dataclass
class SeriesConfig(RunFolder):
    """Where the series is: its runs are ``<root>/<name>-0001`` and so on.

    ``name`` null takes the experiment's ``run.name``.
    """

    name: str | None = field(default=None, metadata=PATH)


@dataclass
class NotifyConfig:
    """Who hears of a retraining's end. A message that cannot be delivered never fails the retraining.

    Attributes:
        command: started by the shell, with what ``--json`` prints on its standard input and the sentence in
            ``DARKROOM_SENTENCE``.
        url: of a webhook, which gets the same as a JSON document by POST.
        timeout_s: for one try. attempts: at most so many, with growing pauses.
        on: ``all`` ends, or only ``changes``: a promotion, a rejection, an undecided gate or a failure, but not
            "nothing to do" and the like; a start that another one or a signal stops is no end.
    """

    command: str | None = field(default=None, metadata=PATH)
    url: str | None = field(default=None, metadata=PATH)
    timeout_s: float = 10.0
    attempts: int = 3
    on: str = "changes"

    def __post_init__(self) -> None:
        check(self.timeout_s > 0, "notify.timeout_s", self.timeout_s, "> 0")
        check(self.attempts > 0, "notify.attempts", self.attempts, "> 0")
        check(self.on in EVENTS, "notify.on", self.on, ", ".join(EVENTS))
        if self.url is not None and not is_web_address(self.url):
            raise UserError(f"notify.url={self.url} is no web address; type notify.url=https://...")


def is_web_address(url: str) -> bool:
    """Whether it names a host by http or https."""
    try:
        found = urlsplit(url)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and bool(found.hostname)


@dataclass
class DatasetConfig:
    """One of several data sets, each curated by itself, that a run is trained on together.

    Its key ``curate``, with settings of its curation, goes to that command and is not seen here.

    Attributes:
        weight: how often a picture of it is seen, compared with one of another, see ``finetune``'s ``data.runs``.
    """

    weight: float = datasets.WEIGHT

    @classmethod
    def of(cls, name: str, values: Any) -> DatasetConfig:
        """From a mapping: Hydra cannot add a typed entry to a mapping from the command line."""
        datasets.check_name(name)
        key = f"{datasets.KEY}.{name}"
        if not isinstance(values, Mapping):
            raise UserError(f"{key}={values} is no data set; type {key}.weight={datasets.WEIGHT:g}")
        if unknown := sorted({*map(str, values)} - {"weight"}):
            raise UserError(
                f"{key}.{unknown[0]} is no key of a data set; accepted: {key}.weight and {key}.curate.KEY, with a KEY of "
                "python -m curate"
            )
        weight = values.get("weight", datasets.WEIGHT)
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        check(is_number and 0 < weight < math.inf, f"{key}.weight", weight, "a weight, > 0")
        return cls(float(weight))


@dataclass
class MlflowConfig:
    """MLflow's model registry; off unless ``url`` or ``model`` is set.

    A user and a password in the address are used and written nowhere. Else those in ``MLFLOW_TRACKING_USERNAME``
    and ``MLFLOW_TRACKING_PASSWORD`` count, or ``MLFLOW_TRACKING_TOKEN``.

    Attributes:
        url: of the server; null takes ``MLFLOW_REGISTRY_URI``, else ``MLFLOW_TRACKING_URI``.
        model: name of the registered model; null takes the series' name.
        alias: that points to the promoted run's version.
    """

    url: str | None = field(default=None, metadata=PATH)
    model: str | None = field(default=None, metadata=PATH)
    alias: str = "champion"


@dataclass
class RegistryConfig:
    """Which model registry follows the promoted run. One that cannot be reached never fails a promotion."""

    mlflow: MlflowConfig = field(default_factory=MlflowConfig)


@dataclass
class RetrainConfig:
    """All of ``python -m workflows.retrain`` but the settings of its steps.

    Attributes:
        start_from: ``base``, or ``promoted``: train on from the promoted run's export.
        compare_with: ``promoted``: a run takes its place only if it is not worse on the same held-out pictures;
            ``base``: it is compared with the base model only, as the first run of a series is.
        fingerprint: ``stat`` compares size, times and inode of each file and hashes those that differ;
            ``content`` hashes all of them.
        until: the last step to do; the next start goes on from there.
        launch: the words that start a training, such as ``torchrun --nproc-per-node 2``; "" is this Python.
        datasets: several data sets by name, which grow each by itself; none: the one of the curation's settings.
        keep: so many finished runs stay beside the promoted one and the one before it; null keeps all.
        fail_on_reject: whether a rejected run ends in exit code 1.
        why: only say what would start a retraining. json: print the outcome as JSON, too.
    """

    run: SeriesConfig = field(default_factory=SeriesConfig)
    start_from: str = "base"
    compare_with: str = "promoted"
    fingerprint: str = "stat"
    until: str = "promote"
    launch: str = field(default="", metadata=PATH)
    datasets: dict[str, Any] = field(default_factory=dict, metadata=entries(DatasetConfig))
    keep: int | None = 3
    fail_on_reject: bool = False
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    why: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (
            ("start_from", STARTS),
            ("compare_with", COMPARED),
            ("fingerprint", FINGERPRINTS),
            ("until", STEPS),
        ):
            value = getattr(self, name)
            check(value in accepted, name, value, ", ".join(accepted))
        check(self.keep is None or self.keep > 0, "keep", self.keep, "null or > 0")
        self.datasets = {
            name: values if isinstance(values, DatasetConfig) else DatasetConfig.of(name, values)
            for name, values in self.datasets.items()
            if values is not None
        }

    @property
    def weights(self) -> dict[str, float]:
        """Of the data sets, in the order of their names; empty for the one of the curation's settings."""
        return {name: self.datasets[name].weight for name in sorted(self.datasets)}

    @property
    def root(self) -> Path:
        """Of all runs."""
        return Path(self.run.root)


register(RetrainConfig, "retrain")

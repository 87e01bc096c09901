"""MLflow's model registry follows the promoted run: a version for each, and an alias that points to one of them.

``current.json`` is the truth. ``registry.json`` beside it says where the registry is, without secrets, and which
export it is known to show; null while that is being changed. Where the two differ, the next start makes up for it.
MLflow refuses folders of this machine as a version's source, so the export is uploaded to a run of MLflow's.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from os import environ
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curate.run.files import read_json, sha256_once, write_certified
from curate.run.schema import UserError, check
from curate.run.tracking import PROJECT
from workflows.retraining import mlflow_server, run_files
from workflows.retraining.config import MlflowConfig, is_web_address
from workflows.retraining.mlflow_server import Refused, Server, Unreachable
from workflows.retraining.record import Record
from workflows.retraining.series import Current, Series
from workflows.retraining.tries import tried

FILE = "registry.json"
ATTEMPTS = 3
_LONGEST = 5000  # characters of a tag, in every release of MLflow
_EXISTS, _NONE = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True)
class Target:
    """What follows the promoted run.

    Attributes:
        address: of the server, which may hold a user and a password; written nowhere.
        model: the registered model. alias: that points to the promoted run's version.
    """

    address: str
    model: str
    alias: str

    @property
    def url(self) -> str:
        """The address without secrets."""
        return mlflow_server.without_login(self.address)

    def content(self) -> dict[str, str]:
        """As it is written down."""
        return {"url": self.url, "model": self.model, "alias": self.alias}


def target(config: MlflowConfig, series: Series) -> Target | None:
    """From the settings and MLflow's variables; None where no registry is asked for.

    Raises:
        UserError: a setting is wrong; says what to type.
    """
    if config.url is None and config.model is None:
        return None
    name, address = "registry.mlflow.url", config.url
    for variable in mlflow_server.ADDRESSES if address is None else ():
        if address := environ.get(variable):
            name = variable
            break
    if not address:
        raise UserError(
            f"registry.mlflow.model={config.model}: of which server? Type registry.mlflow.url=http://HOST:5000, or set "
            "MLFLOW_TRACKING_URI"
        )
    if not is_web_address(address):
        shown = address.rpartition("@")[2]
        raise UserError(
            f"{name}={shown} is no web address; type registry.mlflow.url=http://HOST:5000"
        )
    model = config.model or series.name
    is_name = not re.search("[/:]", model) and not {"'", '"'} <= {*model}
    check(is_name, "registry.mlflow.model", model, "a name without / and :")
    is_alias = re.fullmatch(r"(?!latest$|v\d+$)[\w-]{1,255}", config.alias, re.IGNORECASE)
    accepted = "letters, digits, _ and -, but not latest and v1"
    check(is_alias is not None, "registry.mlflow.alias", config.alias, accepted)
    return Target(address, model, config.alias)


def follow(series: Series, target: Target | None, say: Callable[[str], None]) -> None:
    """Show the promoted run in the registry; what goes wrong is said, and fails nothing. Call it under the series' lock.

    Args:
        series: whose pointer counts.
        target: the registry from now on; None for none.
        say: prints a line for the user.
    """
    path = series.folder / FILE
    if target is None:
        path.unlink(missing_ok=True)
        return
    current, where = series.current(), {"mlflow": target.content()}
    export = current.export if current else ""
    known = read_json(path, sealed=True)
    if known == {**where, "export": export}:
        return
    out_of_step = {**where, "export": None if current else export}
    if known != out_of_step:
        write_certified(path, out_of_step)
    if current is None:
        return
    shown: list[str] = []

    def once() -> str:
        try:
            shown.append(_shown(Server(target.address), target, series, current))
        except Unreachable as error:
            return str(error)
        return ""

    try:
        problem = tried(ATTEMPTS, once)
    except (Refused, UserError, OSError) as error:
        problem = str(error)
    except (LookupError, TypeError, ValueError) as error:
        problem = f"the answer is not MLflow's ({type(error).__name__}: {error})"
    if problem:
        print(
            f"warning: {target.url} does not show {current.run} as {target.model}@{target.alias}: {problem}. The promotion "
            f"holds all the same, in {series.folder / 'current.json'}; the next start tries again",
            file=sys.stderr,
        )
        return
    write_certified(path, {**where, "export": export})
    say(f"registry  {target.model}@{target.alias} is version {shown[-1]}, {current.run}")


def behind(series: Series, target: Target | None) -> str:
    """What the next start has to make up for, as a sentence; "" for nothing."""
    current = series.current()
    if target is None or current is None:
        return ""
    known = read_json(series.folder / FILE, sealed=True)
    if known == {"mlflow": target.content(), "export": current.export}:
        return ""
    return f"{target.url} does not show {current.run} as {target.model}@{target.alias} yet"


def follow_again(series: Series, say: Callable[[str], None]) -> None:
    """:func:`follow` with the registry of the last retraining, if it had one."""
    known = read_json(series.folder / FILE, sealed=True)
    if known is None:  # a damaged one is written again by the next retraining
        return
    where = known["mlflow"]
    address = mlflow_server.with_login(where["url"])
    follow(series, Target(address, where["model"], where["alias"]), say)


def _shown(server: Server, target: Target, series: Series, current: Current) -> str:
    """Let the alias point to the version of the promoted run, which is made unless it is there; returns its number."""
    record, export = Record.load(series.run_dir(current.run)), series.root / current.export
    if record is None or not export.is_dir():
        raise FileNotFoundError(f"{export} is gone")
    tags = _tags(record, export)
    version = _version(server, target.model, tags) or _registered(
        server, target.model, tags, record, export
    )
    alias = {"name": target.model, "alias": target.alias, "version": version}
    server.post("registered-models/alias", alias)
    return version


def _tags(record: Record, export: Path) -> dict[str, str]:
    """What is known of a run, the first three of which identify it."""
    curations = run_files.manifests(export.parents[1]).values()
    found = {
        "series": record.series,
        "run": record.run,
        "weights_sha256": weights_sha256(export),
        "verdict": record.sentence,
        "data_fingerprint": " ".join(manifest.digest() for manifest in curations),
        "export": export.resolve().as_uri(),
    }
    return {f"darkroom.{name}": value[:_LONGEST] for name, value in found.items() if value}


def weights_sha256(export: Path) -> str:
    """Of the weights' file; of several, of the list that ``sha256sum`` prints of them."""
    files = [*run_files.weights_of(export)]
    lines = [f"{sha256_once(path)}  {path.relative_to(export).as_posix()}\n" for path in files]
    if len(files) == 1:
        return sha256_once(files[0])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_of(entry: Mapping[str, Any], tags: Mapping[str, str]) -> bool:
    """Whether what MLflow lists is of the same run."""
    found = {tag["key"]: tag["value"] for tag in entry.get("tags", [])}
    names = ("darkroom.series", "darkroom.run", "darkroom.weights_sha256")
    return all(found.get(name) == tags.get(name) for name in names)


def _version(server: Server, model: str, tags: Mapping[str, str]) -> str:
    """The version of a run; "" where there is none yet."""
    sign = '"' if "'" in model else "'"
    query = {"filter": f"name={sign}{model}{sign}"}
    while True:
        page = server.get("model-versions/search", **query)
        for each in page.get("model_versions", []):
            if _is_of(each, tags) and each.get("status", "READY") == "READY":
                return str(each["version"])
        if not (token := page.get("next_page_token")):
            return ""
        query["page_token"] = token


def _registered(
    server: Server, model: str, tags: Mapping[str, str], record: Record, export: Path
) -> str:
    """Upload an export and make a version of it; returns its number."""
    info = _mlflow_run(server, tags, record)
    run_id, uri = info["run_id"], info["artifact_uri"]
    place = urlsplit(uri)
    if place.scheme != "mlflow-artifacts" or place.netloc:
        raise Refused(
            "",
            f"it keeps files in {uri}, where only MLflow's packages write; start it with mlflow server --serve-artifacts "
            "--default-artifact-root mlflow-artifacts:/, and give MLflow's experiment of that name another one",
        )
    for name in run_files.files_of(export):
        server.upload(f"{place.path.strip('/')}/export/{name}", export / name)
    metrics = [
        {"key": key, "value": value, "timestamp": _milliseconds(record.ended), "step": record.kept}
        for key, value in _metrics(record.summary)
    ]
    server.post("runs/log-batch", {"run_id": run_id, "metrics": metrics})
    ended = {"run_id": run_id, "status": "FINISHED", "end_time": _milliseconds(record.ended)}
    server.post("runs/update", ended)
    _unless_there(server, "registered-models/create", {"name": model})
    version = {
        "name": model,
        "source": f"{uri}/export",
        "run_id": run_id,
        "description": record.sentence[:_LONGEST],
        "tags": _listed(tags),
    }
    return str(server.post("model-versions/create", version)["model_version"]["version"])


def _mlflow_run(server: Server, tags: Mapping[str, str], record: Record) -> dict[str, Any]:
    """MLflow's run for the files of ours: one that a killed start made, or a new one."""
    try:
        found = server.get("experiments/get-by-name", experiment_name=PROJECT)["experiment"]
    except Refused as refused:
        if refused.code != _NONE:
            raise
        _unless_there(server, "experiments/create", {"name": PROJECT})
        found = server.get("experiments/get-by-name", experiment_name=PROJECT)["experiment"]
    weights = tags["darkroom.weights_sha256"]
    query = {
        "experiment_ids": [found["experiment_id"]],
        "filter": f"tags.`darkroom.weights_sha256` = '{weights}'",
    }
    for each in server.post("runs/search", query).get("runs", []):
        if _is_of(each["data"], tags):
            return each["info"]
    made = {
        "experiment_id": found["experiment_id"],
        "run_name": record.run,
        "start_time": _milliseconds(record.started),
        "tags": _listed(tags),
    }
    return server.post("runs/create", made)["run"]["info"]


def _unless_there(server: Server, path: str, content: Mapping[str, str]) -> None:
    try:
        server.post(path, content)
    except Refused as refused:
        if refused.code != _EXISTS:
            raise


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _metrics(summary: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """The figures of a history's line, with the ends of their intervals."""
    for name, metric in summary.get("evaluation", {}).get("metrics", {}).items():
        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            value = metric.get(part)
            if isinstance(value, int | float) and math.isfinite(value):
                yield f"{name}{suffix}", float(value)


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)

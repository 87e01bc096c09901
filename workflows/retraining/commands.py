"""The commands that a retraining consists of, from an experiment and what was typed beside it.

``curate.``, ``train.`` and ``evaluate.`` in front of a key hand it to that command:
``train.optim.lr=1e-4``. All else is the retraining's own.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.config import check_name
from curate.run.files import write_text
from curate.run.overrides import is_override, key_of, value_of
from workflows.retraining import several
from workflows.retraining.config import RetrainConfig
from workflows.retraining.series import Series

if TYPE_CHECKING:
    from omegaconf import DictConfig

SECTIONS = {"curate": "curate", "train": "finetune", "evaluate": "evaluate"}
"""Sections of an experiment, and the step that each is of."""

FLAGS = {"--why": "why=true", "--dry-run": "why=true", "--json": "json=true"}
"""What is typed as an option, and the setting that it stands for."""

EXPERIMENT = "experiment.yaml"
"""In a run's folder: the experiment's settings as they were when the run began."""

PACKAGES = Path(__file__).resolve().parents[2]  # the folder that holds curate/, finetune/, ...
_OWN = {
    "run.root": "type run.root",
    "run.name": "type run.name",
    "data.run": "each run trains on its own pictures; remove it",
    "data.runs": "each run trains on its own pictures; remove it, or name several data sets in the section retrain:, "
    "as datasets.NAME.curate.KEY and datasets.NAME.weight",
    "method.init": "type start_from=promoted to train on from the promoted run; else remove it",
    "gate.against": "each run is compared with the promoted one; remove it",
    "resume.allow": "a run of other settings is another run; remove it",
    "dry_run": "a trial leaves nothing to train on; remove it",
    "stage": "a retraining does all stages itself; remove it",
    "shard": "a retraining measures all by itself; engine=processes or engine=ray does so in several; remove it",
    "split.held_out": (
        "what any run held out stays held out. Put your own table into FOLDER/NAME-series/heldout_keys.parquet "
        "before the first run, and remove it here"
    ),
}
"""Keys that the retraining sets itself, and what to do instead; an experiment names its runs for all commands."""


_SECRET = ("notify", "notify.url", "notify.command")
_SECRET += ("registry", "registry.mlflow", "registry.mlflow.url")


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """What was typed, in the retraining's own part and those of the commands.

    >>> split(["experiment=demo", "keep=2", "train.optim.lr=1e-4"])
    (['experiment=demo', 'keep=2'], {'curate': [], 'train': ['optim.lr=1e-4'], 'evaluate': []})
    """
    own: list[str] = []
    handed: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for text in arguments:
        section, dot, rest = text.lstrip("+").partition(".")
        if is_override(text) and (found := _OF_DATASET.fullmatch(text)):
            handed.setdefault(several.section_of(found[1]), []).append(found[2])
            continue
        if is_override(text) and dot and section in SECTIONS and "=" not in section:
            handed[section].append(rest)
        else:
            own.append(FLAGS.get(text, text))
    return own, handed


_OF_DATASET = re.compile(r"\+{0,2}datasets\.([^.=]+)\.curate\.(.+)", re.DOTALL)

_typed: list[tuple[list[str], dict[str, list[str]]]] = []  # of this process, see remember()


def remember(arguments: Sequence[str], handed: dict[str, list[str]]) -> None:
    """Keep the command line, and the part of it that Hydra does not see."""
    _typed[:] = [(list(arguments), handed)]


def typed() -> list[str]:
    """The command line as it was typed, without the program."""
    return list(_typed[0][0]) if _typed else []


def is_json_typed() -> bool:
    """Whether the command line asks for JSON, as the quick look understands it."""
    return "json=true" in split(typed())[0]


def without_secrets(text: str) -> str:
    """An argument as it may be written down: addresses and commands hold passwords.

    >>> without_secrets("notify.url=https://hooks.example.org/T0/B1/secret")
    'notify.url=***'
    """
    from curate.run.provenance import redacted_override

    is_secret = is_override(text) and key_of(text) in _SECRET
    return f"{text.partition('=')[0]}=***" if is_secret else redacted_override(text)


def of_command(config: RetrainConfig) -> tuple[Settings, Series]:
    """The settings of the steps and the series that this process's command line is about.

    Raises:
        UserError: a setting is wrong, or nothing says what is to be retrained.
    """
    arguments = typed()
    handed = _typed[0][1] if _typed else {section: [] for section in SECTIONS}
    named = [text for text in arguments if is_override(text) and key_of(text) == "experiment"]
    experiment = named[-1] if named else ""
    name = config.run.name or series_name(experiment)
    check_name("run.name", name)
    _refuse_no_program(config.launch)
    if config.weights:
        several.check_series(name)
    settings = settings_of(experiment, handed, config.weights)
    _refuse_own_pictures(name, settings)
    return settings, Series(config.root, name)


@dataclass(frozen=True)
class Settings:
    """What the three commands are set to.

    Attributes:
        experiment: what its file holds for these commands, as YAML; "" for none.
        handed: further arguments for each section, as typed.
        composed: each section's whole configuration, as nested mappings, without what the retraining sets itself.
        files: the experiment's file, absolute; none where there is no experiment.
        configs: each section's whole configuration, with its types.
        weights: of several data sets, each of which has a section of its own, see ``several.section_of``, in place of
            ``curate``.
    """

    experiment: str
    handed: Mapping[str, Sequence[str]]
    composed: Mapping[str, Mapping[str, Any]]
    files: tuple[str, ...]
    configs: Mapping[str, DictConfig] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def curations(self) -> list[str]:
        """The sections of curations: one for each data set."""
        return [name for name in self.composed if several.command_of(name) == "curate"]

    def flat(self) -> dict[str, str]:
        """Every setting by section and dotted key, secrets redacted; those of the engine decide nothing."""
        from curate.run.provenance import redacted

        weights = {f"datasets.{name}.weight": str(each) for name, each in self.weights.items()}
        return weights | {
            f"{section}: {key}": str(value)
            for section, values in self.composed.items()
            for key, value in _flat(redacted(dict(values)))
            if not key.startswith("engine.")
        }

    def arguments(
        self, section: str, root: str, run: str, further: Sequence[str] = ()
    ) -> list[str]:
        """Of one command, for one run."""
        file = Path(root, run, EXPERIMENT).absolute()
        experiment = [f"experiment={file}"] if self.experiment else []
        where = [f"run.root={root}", f"run.name={run}"]
        compared = any(key_of(text) == "gate.against" for text in further)
        handed = [text for text in self.handed[section] if compared or not self._compares(text)]
        return [*experiment, *handed, *further, *where]

    def keep(self, run_dir: Path) -> None:
        """Write the experiment into a run's folder, for its commands: its own file may change while they run."""
        path = run_dir / EXPERIMENT
        if self.experiment and not (path.is_file() and path.read_text("utf-8") == self.experiment):
            write_text(path, self.experiment)

    def _compares(self, text: str) -> bool:
        """Whether a setting is of a rule against the promoted run, which an evaluation without one refuses."""
        rules, _, name = key_of(text).rpartition("gate.rules.")
        known = self.composed["evaluate"].get("gate", {}).get("rules", {})
        rule = known.get(name.partition(".")[0], {}) if not rules and "gate.rules." in text else {}
        return rule.get("metric") == "against_change"


def programs(launch: str) -> dict[str, list[str]]:
    """What starts each command; the training's with the words ``launch`` in front."""
    python = [sys.executable, "-m"]
    train = str(PACKAGES / "finetune" / "train.py")
    words = shlex.split(launch)
    return {
        "curate": [*python, "curate"],
        "train": [*words, train] if words else [sys.executable, train],
        "evaluate": [*python, "evaluate"],
    }


def settings_of(
    experiment: str, handed: Mapping[str, Sequence[str]], weights: Mapping[str, float] | None = None
) -> Settings:
    """Compose the settings of all three commands, as these would.

    Args:
        experiment: the argument ``experiment=...``; "" for none.
        handed: see :func:`split`.
        weights: of several data sets, by name.

    Raises:
        UserError: a setting of any of them is wrong; names the section.
    """
    from importlib import import_module

    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from curate.run import experiment as experiments
    from curate.run.keys import SCHEMAS
    from curate.run.overrides import prepare, without_rivals
    from curate.run.refusals import explain
    from curate.run.schema import UserError, check_given

    path = experiments.find(value_of(experiment)) if experiment else None
    sections, content = _read(path) if path else ({}, "")
    composed: dict[str, Mapping[str, Any]] = {}
    configs: dict[str, DictConfig] = {}
    for section in SECTIONS:
        import_module(SCHEMAS[section])
        _refuse_own(f"{section}.", handed[section])
        in_file = [
            text for text in sections.get(section, []) if not key_of(text).startswith("run.")
        ]
        _refuse_own(f"{path}, section {section}: ", in_file)
        _refuse_short(section, handed[section])
    datasets = several.parts(path, sections, handed, weights or {})
    for section, texts in datasets.items():
        _refuse_own(f"{several.shown(section)}.", texts)
        _refuse_short("curate", texts, several.shown(section))
    for section in several.sections_of(weights or {}):
        command = several.command_of(section)
        in_file = sections.get(command, [])
        further = datasets.get(section, handed[command])
        typed = without_rivals([*in_file, *prepare(further)])
        try:
            with _hydra():
                cfg = compose(command, typed)
            check_given(cfg)
            values = OmegaConf.to_container(cfg, resolve=True)
        except UserError as error:
            raise UserError(f"settings of {section}: {error}") from error
        except (HydraException, OmegaConfBaseException) as error:
            said = explain(error, typed, command)
            raise UserError(f"settings of {section}: {said}") from error
        assert isinstance(values, dict)
        composed[section] = _without_own({str(key): value for key, value in values.items()})
        configs[section] = cfg
    several.refuse_alike(composed)
    files = (str(path.absolute()),) if path else ()
    handed = {**handed, **datasets}
    return Settings(content, handed, composed, files, configs, dict(weights or {}))


def _read(path: Path) -> tuple[dict[str, list[str]], str]:
    """The overrides of each section of an experiment, and the sections of the commands as YAML: of one state of it."""
    from omegaconf import OmegaConf

    from curate.run import experiment as experiments

    while True:
        before = path.read_bytes()
        sections, content = experiments.read(path), experiments.load(path)
        if path.read_bytes() == before:
            kept = {name: values for name, values in content.items() if name in SECTIONS}
            return sections, OmegaConf.to_yaml(OmegaConf.create(kept)) if kept else ""


def _hydra() -> AbstractContextManager[Any]:
    """Hydra on our configuration; inside a command it is at work already."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from curate.run.overrides import CONF

    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return initialize_config_dir(str(CONF), version_base="1.3")


def series_name(experiment: str) -> str:
    """The name of the series where none is typed: the experiment's ``run.name``, or its file's name.

    Raises:
        UserError: there is no experiment; says what to type.
    """
    from curate.run import experiment as experiments
    from curate.run.schema import UserError

    if not experiment:
        raise UserError(
            "what is to be retrained? Type experiment=FILE.yaml, or run.name=NAME and the settings of the commands, "
            "such as curate.dataset=folder curate.dataset.root=FOLDER train.model=sd15"
        )
    path = experiments.find(value_of(experiment))
    for section, overrides in experiments.read(path).items():
        for text in overrides if several.command_of(section) == section else ():
            if key_of(text) == "run.name":
                return value_of(text)
    return path.stem


def _refuse_own(where: str, arguments: Sequence[str]) -> None:
    """Refuse keys that the retraining sets itself."""
    from curate.run.schema import UserError

    for text in arguments:
        key = "data.runs" if key_of(text).startswith("data.runs.") else key_of(text)
        if (instead := _OWN.get(key)) and value_of(text) != "null":
            raise UserError(
                f"{where}{text}: the retraining sets {key} for each run itself; {instead}"
            )


def _refuse_own_pictures(series: str, settings: Settings) -> None:
    """Refuse to measure what the base lost on pictures that the series is trained on."""
    from curate.run.schema import UserError

    run = (settings.composed["evaluate"].get("retention") or {}).get("run")
    if run is not None and re.fullmatch(rf"{re.escape(series)}-[0-9]{{4,}}(-.+)?", run):
        raise UserError(
            f"evaluate.retention.run={run} is a curation of this series, whose pictures are trained on, and cannot show what "
            "the base lost; give a run that was curated from the base's own data, or remove it"
        )


def _refuse_short(section: str, arguments: Sequence[str], shown: str = "") -> None:
    """Refuse ``train.samples=...``: in front of the training's own keys ``train.`` stands twice."""
    from curate.run.keys import groups, keys
    from curate.run.schema import UserError

    valued = {name for name, key in keys(section).items() if not key.is_group}
    known = {*valued, *groups(section)}
    for text in arguments:
        if key_of(text) not in known and f"{section}.{key_of(text)}" in valued:
            before = shown or section
            raise UserError(
                f"{before}.{text}: {before}. hands a key to that command, whose own begins with {section}. as well; "
                f"type {before}.{section}.{text}"
            )


def _refuse_no_program(launch: str) -> None:
    """Refuse words that start no training, before the hours that come before it."""
    from curate.run.schema import UserError

    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise UserError(f"launch={launch}: a quotation has no end; close it") from error
    if words and shutil.which(words[0]) is None:
        raise UserError(
            f'launch={launch}: there is no program {words[0]}; type its path, or launch="accelerate launch"'
        )


def _without_own(content: dict[str, Any]) -> dict[str, Any]:
    """Without Hydra's part, what differs from run to run, and who gets the curves."""
    left_out = ("hydra", "run", "data", "tracker")
    found = {key: value for key, value in content.items() if key not in left_out}
    if isinstance(gate := found.get("gate"), dict):
        found["gate"] = {key: value for key, value in gate.items() if key != "against"}
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

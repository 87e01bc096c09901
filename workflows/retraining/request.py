"""What the commands of a retraining would refuse, said before a run is begun: from their settings and the input alone.

Each command checks its request before it does anything. Left to them, a wrong folder would leave a run that holds
nothing, and a wrong base model would be found after hours of curation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from curate.pipeline.config import CurateConfig
from curate.run.datasets import run_of
from curate.run.refusals import explain
from curate.run.schema import UserError, to_dataclass
from evaluate.config import EvaluateConfig
from finetune.config import TrainConfig
from workflows.retraining import comparison, held_out, several
from workflows.retraining.commands import SECTIONS, Settings
from workflows.retraining.config import STEPS, RetrainConfig
from workflows.retraining.series import Current, Series


def examine(
    config: RetrainConfig,
    settings: Settings,
    series: Series,
    run: str,
    done: Collection[str] = (),
) -> None:
    """Check all that the steps need which are still to be done.

    Args:
        config: of the retraining. settings: of its commands.
        series: that the run belongs to. run: its name.
        done: steps that need nothing any more.

    Raises:
        UserError, FileNotFoundError: as the command would say it; names its section.
    """
    last = STEPS.index(config.until)
    start = _start(config, series)
    for section in several.sections_of(settings.weights):
        command, dataset = several.command_of(section), several.dataset_of(section)
        step = SECTIONS[command]
        is_done = (section if dataset else step) in done
        if is_done or STEPS.index(step) > last or section not in settings.configs:
            continue
        cfg = settings.configs[section].copy()
        cfg.run.root, cfg.run.name = str(series.root), run_of(run, dataset) if dataset else run
        try:
            _EXAMINE[command](cfg, settings, series, start)
        except UserError as error:
            raise UserError(f"settings of {section}: {error}") from error
        except OmegaConfBaseException as error:  # a value that has none yet
            raise UserError(f"settings of {section}: {explain(error, [], command)}") from error
        except FileNotFoundError as error:
            said = _retyped(str(error), section)
            raise FileNotFoundError(f"settings of {section}: {said}") from error


def _retyped(said: str, section: str) -> str:
    """A message whose last word is a key of the data, which is typed otherwise for one of several data sets."""
    before, found, key = said.rpartition(f" {several.command_of(section)}.dataset.")
    return f"{before} {several.shown(section)}.dataset.{key}" if found else said


def refuse_incomparable(config: RetrainConfig, settings: Settings, series: Series) -> None:
    """Check that a new run could begin with the promoted one, and be compared with it.

    Raises:
        UserError: the promoted run is gone, or the new one could not be compared with it.
    """
    current = series.current()
    if current and not (series.root / current.export).is_dir():
        raise UserError(
            f"{series.root / current.export} is gone, which {series.folder / 'current.json'} names. "
            "Restore it from a backup, or type python -m workflows.promote RUN with another run of the series"
        )
    if compared := compared_with(config, current):
        comparison.refuse_other_settings(series.run_dir(compared.run), settings)


def compared_with(config: RetrainConfig, current: Current | None) -> Current | None:
    """The promoted run, if the next one has to be as good; else None."""
    return current if config.compare_with == "promoted" else None


def _start(config: RetrainConfig, series: Series) -> Path | None:
    """The export that a run begins with; None for the base, and where that is gone, which is said elsewhere."""
    current = series.current() if config.start_from == "promoted" else None
    export = series.root / current.export if current else None
    return export if export and export.is_dir() else None


def _curation(cfg: DictConfig, _settings: Settings, series: Series, _start: Path | None) -> None:
    from curate.pipeline import request

    config = to_dataclass(cfg, CurateConfig)
    for text in held_out.settings(series):
        config.split = replace(config.split, held_out=text.partition("=")[2])
    request.check(config)


def _training(cfg: DictConfig, _settings: Settings, _series: Series, start: Path | None) -> None:
    from finetune import doctor
    from finetune.start import examine as examine_start

    config = to_dataclass(cfg, TrainConfig)
    doctor.examine_settings(config)
    if start:
        config.method.init = str(start)
        examine_start(config)


def _evaluation(cfg: DictConfig, settings: Settings, series: Series, _start: Path | None) -> None:
    from evaluate import judging_clip, request

    config = to_dataclass(cfg, EvaluateConfig)
    request.examine(config)
    clip = config.clip
    if clip.name == judging_clip.CURATION:  # which does not exist yet
        scored_by = settings.composed[settings.curations[0]]["clip"]  # one for all data sets
        tag = clip.pretrained or scored_by["pretrained"]
        clip = replace(clip, name=scored_by["name"], pretrained=tag)
    judging_clip.settle(clip, series.root, config.samples.clip_captions > 0)


_EXAMINE: dict[str, Callable[[DictConfig, Settings, Series, Path | None], Any]] = {
    "curate": _curation,
    "train": _training,
    "evaluate": _evaluation,
}

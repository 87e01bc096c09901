"""How much of what was trained is exported and judged (``export.scale``), chosen after the training.

W_base + s * (W - W_base) is the base at s = 0 and the training's result at 1 (of all weights: Wortsman et al. 2022,
WiSE-FT; of an adapter: its scale). What is gained falls slower than what is lost, which grows with the square of the
update. So between them are models that keep most of the gain and lose little.

``scale.json`` in the run's folder says which scale was chosen, from which measurements and by which rule. Checkpoints stay
as they were trained; whoever opens the run to judge, draw or export gets all of them at that scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.run import checksums
from curate.run.files import read_json, sha256_once, write_certified
from curate.run.finished import to_mend
from curate.run.schema import UserError
from finetune.config.retention import ExportConfig
from finetune.intervals import Estimate, estimate

if TYPE_CHECKING:
    from finetune.checkpoint import Checkpoint

FILE = "scale.json"
PICTURES = "scale"  # the folder of the base's pictures
DRAWS = 1  # noises for each noise level


@dataclass(frozen=True, slots=True)
class Measured:
    """What a scale gains and costs, fractions of the base's loss with their 95 % intervals.

    Attributes:
        heldout: change of the held-out loss: value, low, high.
        base_pictures: change of the loss on pictures that the base drew.
        start: the difference of the held-out loss from that of what the training started with; None where that was the base.
    """

    scale: float
    heldout: tuple[float, float, float]
    base_pictures: tuple[float, float, float]
    start: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``scale.json`` says.

    Attributes:
        scale: of the export.
        asked: ``export.scale``. forgotten: ``export.forgotten``.
        prompts: digest of those that the base drew; "" where the scale was given.
        rule: in words; "" where the scale was given.
        weights_sha256: of the checkpoint that was measured.
        table: all scales that were measured, the smallest first.
    """

    scale: float
    asked: Any
    forgotten: float
    prompts: str
    rule: str
    weights_sha256: str
    table: tuple[Measured, ...] = ()


def choose(table: Sequence[Measured], forgotten: float) -> tuple[float, str]:
    """The largest scale that costs little, and the rule in words.

    That is one at which the loss on the base's pictures rose by ``forgotten`` at most, by the upper end of its interval,
    and the held-out loss fell, by the upper end of its interval. Where none is, the smallest one.

    A scale shrinks what a training started with as well. So where that was an export, the held-out loss has to be lower
    than the start's, too; where none is, it is the smallest of those with a lower one, or else the largest of all.

    >>> row = lambda s, gain, cost: Measured(s, (gain, gain, gain), (cost, cost, cost))
    >>> choose([row(0.5, -0.2, 0.05), row(1.0, -0.3, 0.4)], 0.1)[0]
    0.5
    """
    started = any(row.start for row in table)
    against = " against the base and against what the training started with" if started else ""
    rule = (
        f"the largest at which the loss on the base's pictures rose by at most {100 * forgotten:g} % and the held-out loss "
        f"fell{against}, each by the upper end of its 95 % interval"
    )
    better = [row for row in table if row.start is None or row.start[2] < 0]
    fine = [row.scale for row in better if row.base_pictures[2] <= forgotten and row.heldout[2] < 0]
    if fine:
        return max(fine), rule
    if not better:
        return (
            max(row.scale for row in table),
            f"none is {rule}; so the largest, since at no scale it fell against what the training started with, which a "
            "smaller one shrinks as well",
        )
    of_those = (
        " of those at which it fell against what the training started with" if started else ""
    )
    return min(row.scale for row in better), f"none is {rule}; so the smallest{of_those}"


def change(
    losses: np.ndarray,
    base: np.ndarray,
    groups: Sequence[str],
    since: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Of the mean relative loss, with its 95 % interval over groups: value, low, high.

    Args:
        losses: [N, B, R]. base: those of the base, same items and grid. groups: [N].
        since: those that it changed from; None is the base.
    """
    from finetune.heldout import relative

    before = relative(base if since is None else since, base, groups)
    found: Estimate = estimate(relative(losses, base, groups) - before, groups)
    return found.value, found.low, found.high


def chosen(finetune_dir: Path) -> Choice | None:
    """What ``scale.json`` in a run's folder says; None where the export is as it was trained.

    Raises:
        UserError: it is damaged.
    """
    path = finetune_dir / FILE
    if not path.exists():
        return None
    content = read_json(path, sealed=True)
    if content is None:
        raise UserError(
            f"{path} is damaged, not what training wrote; "
            + to_mend(finetune_dir.parent, "type the training command again, which makes it again")
        )
    return of_json(content)


def of_json(content: Mapping[str, Any]) -> Choice:
    """What ``scale.json`` holds, as an object."""
    rows = [
        Measured(
            row["scale"],
            tuple(row["heldout"]),
            tuple(row["base_pictures"]),
            tuple(row["start"]) if row.get("start") else None,
        )
        for row in content["table"]
    ]
    return Choice(**{**content, "table": tuple(rows)})


def given(export: ExportConfig, weights_sha256: str) -> Choice:
    """That of an ``export.scale`` which needs no measurement, for a checkpoint of that hash."""
    return Choice(float(export.scales[0]), export.scale, export.forgotten, "", "", weights_sha256)


def of_run(finetune_dir: Path, export: ExportConfig, best: Checkpoint) -> Choice | None:
    """The scale at which a run's checkpoints are judged, drawn and exported; None is as they were trained.

    What was chosen counts for the best checkpoint that was measured and for what was asked then alone: after a training
    has gone on, or was begun again with another scale, the next one is still to be chosen.

    Args:
        finetune_dir: of the run. export: its settings. best: its best checkpoint by now.

    Raises:
        UserError: ``scale.json`` is damaged.
    """
    known = chosen(finetune_dir)
    if export.scales == [1.0] and not export.chosen:
        return None
    digest = sha256_once(best.weights_path())
    if not export.chosen:
        return given(export, digest)
    asked = (export.scale, export.forgotten, digest)
    holds = known and (known.asked, known.forgotten, known.weights_sha256) == asked
    return known if holds else None


def note(finetune_dir: Path, choice: Choice) -> None:
    """Write ``scale.json``; there is none where the weights are exported as they were trained, unmeasured."""
    path = finetune_dir / FILE
    if choice.scale == 1 and not choice.table:
        if path.exists():
            with checksums.updated(finetune_dir, (FILE,)):
                path.unlink()
        return
    with checksums.updated(finetune_dir, (FILE,)):
        write_certified(path, asdict(choice))


def line(choice: Choice) -> str:
    """What a command says of it."""
    if not choice.table:
        return f"{choice.scale:g} of what was trained (export.scale)"
    row = next(row for row in choice.table if row.scale == choice.scale)
    heldout, lost = (_percent(values) for values in (row.heldout, row.base_pictures))
    return f"{choice.scale:g} of what was trained: held-out loss {heldout}, loss on pictures of the base {lost}; {choice.rule}"


def _percent(values: tuple[float, float, float]) -> str:
    from curate.run.intervals import changes

    value, low, high = changes(*values)
    return f"{value} % [{low}, {high}]"


def as_rows(choice: Choice) -> list[list[str]]:
    """The table in words: scale, held-out loss, loss on the base's pictures, held-out loss against that of a start."""
    return [
        [
            f"{row.scale:g}{' (chosen)' if row.scale == choice.scale else ''}",
            _percent(row.heldout),
            _percent(row.base_pictures),
            *([_percent(row.start)] if row.start else []),
        ]
        for row in choice.table
    ]

"""Does a ControlNet do what its condition says? By how well edges of pictures lie on those of the condition."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator
from evaluate.results import BASE_KEPT, NOT_ASKED, Finding, Metric, Results

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from evaluate.evaluation import Evaluation

NAMES = ("obedience_off", "obedience_kept", "obedience_change")
_ANCHOR = "obedience"


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The pictures of the checkpoint to keep, and the base's of the same noise, which are those without a condition."""
    if evaluation.run.config.method.follows() is None:
        found = _not(f"{NOT_ASKED}: no ControlNet was trained")
    elif not evaluation.config.samples.clip_captions:
        found = _not("left out by samples.clip_captions=0")
    elif evaluation.kept == 0:
        found = _not(f"{BASE_KEPT}, which follows no condition")
    elif find_spec("cv2") is None:
        found = _not('OpenCV, which finds edges, is not installed: pip install "darkroom[control]"')
    else:
        found = _measured(evaluation)
    yield from found.items()


def _not(reason: str) -> dict[str, Metric]:
    return dict.fromkeys(NAMES, Metric(reason=reason))


def _measured(evaluation: Evaluation) -> dict[str, Metric]:
    import numpy as np

    from evaluate.measure.features import read_picture
    from evaluate.metrics.obedience import agreements
    from finetune.canny import edges
    from finetune.intervals import estimate

    prompts = evaluation.prompts[: evaluation.config.samples.clip_captions]
    wanted = [
        edges_of_condition(prompt.control) for prompt in prompts if prompt.control is not None
    ]
    scores = []
    for row in (0, evaluation.kept):
        paths = evaluation.drawn[row][: len(prompts)]
        scores.append(agreements([edges(read_picture(path)) > 0 for path in paths], wanted))
    usable = np.flatnonzero(np.isfinite(scores[0]))
    if not len(usable):
        return _not("no condition has an edge")
    off, kept = (each[usable] for each in scores)
    groups = evaluation.groups_of([prompts[i].key for i in usable])
    values = (off, kept, kept - off)
    return {
        name: Metric.of(estimate(value, groups), "val")
        for name, value in zip(NAMES, values, strict=True)
    }


def edges_of_condition(control: Tensor) -> np.ndarray:
    """[H, W] bool of a condition [1 or 3, H, W] uint8: one channel holds edges, of three they are found."""
    from PIL import Image

    from finetune.canny import edges

    if len(control) == 1:
        return control[0].numpy() > 0
    return edges(Image.fromarray(control.permute(1, 2, 0).contiguous().numpy())) > 0


def sections(found: Results) -> Iterator[Section]:
    """In plain words; nothing where no ControlNet was trained."""
    change = found.metrics.get("obedience_change", Metric(reason=NOT_ASKED))
    if change.value is None and change.reason.startswith(NOT_ASKED):
        return
    yield Section("Following the condition", _ANCHOR, _section(found, change))


def _section(found: Results, change: Metric) -> Markup:
    if change.value is None:
        return page.paragraph(f"Not measured: {change.reason}.", "note")
    shown = {name: text.shown(found.metrics[name]) for name, text in EVALUATOR.metrics.items()}
    return page.paragraph(
        f"Edges of the {change.n} pictures that were drawn for held-out captions lie where the condition has edges to a "
        f"degree of {shown['obedience_kept']} with the condition, and of {shown['obedience_off']} from the same noise "
        f"without it: a difference of {shown['obedience_change']}. 1 would be every edge in its place and no other; 0 is "
        "none. The score without a condition says how much of it is chance."
    )


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """What the headline says."""
    change = metrics.get("obedience_change", Metric())
    if change.value is None:
        return
    numbers = EVALUATOR.metrics["obedience_change"].shown(change)
    if change.low is not None and change.low > 0:
        said, state = "Pictures follow the condition", "good"
    elif change.value > 0:
        said, state = "Pictures follow the condition, perhaps", "warn"
    else:
        said, state = "Pictures do not follow the condition", "bad"
    yield Finding(
        "result",
        state,
        f"{said}: their edges agree with it by {numbers} more than without it (1 is all).",
        _ANCHOR,
    )


_MEANING = (
    "How well the edges of generated pictures lie on those of the condition, as the harmonic mean of precision and recall: 1 "
    "is all of them and no others, 0 none. "
)

EVALUATOR = Evaluator(
    metrics={
        "obedience_off": Description(
            "Edges in place, without the condition",
            _MEANING + "Of pictures from the same noise without a condition: what chance gives.",
            better="",
            fraction=False,
        ),
        "obedience_kept": Description(
            "Edges in place, with the condition",
            _MEANING + "Of the kept checkpoint's pictures.",
            better="higher",
            fraction=False,
        ),
        "obedience_change": Description(
            "Edges in place, with against without",
            "The difference of the two, compared picture by picture, same seeds.",
            better="higher",
            fraction=False,
        ),
    },
    measure=measure,
    sections=sections,
    findings=findings,
    position=45,
)

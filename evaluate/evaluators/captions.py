"""Do captions matter: is a picture's loss lower with its own caption than with another's, or with none?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.decide.config import SMALLEST_JUDGED
from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, FindingOn, cost, draw_interval
from evaluate.results import BASE_KEPT, Finding, Metric, Results

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation
    from evaluate.measure.caption_losses import CaptionLosses

_WIDTH = 7.5  # inches before the page scales figures to its own width
_BEFORE = "caption_fit_before"
_TRAIN_MINUS_VAL = "caption_gain_train_minus_val"
LEAST_FIT = 0.2  # as in finetune.caption_check and conf/gate/default.yaml; shuffled captions have 0
MEMORISED = 0.05  # of the base's loss, by which the gain rises more on training pictures
_BASE_KEPT = f"{BASE_KEPT}; there is nothing to compare it with"


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Base, kept and exported on held-out pictures, base and kept on training pictures."""
    yield _BEFORE, _before(evaluation)
    if few := evaluation.too_few:
        yield from dict.fromkeys([*_ON_VAL, _TRAIN_MINUS_VAL], few).items()
        return
    val = evaluation.caption_losses("val")
    yield from _on_val(val, evaluation.kept, evaluation.exported).items()
    yield _TRAIN_MINUS_VAL, _train_minus_val(evaluation, val)


def _before(evaluation: Evaluation) -> Metric:
    """What the training measured on its own pictures before it began."""
    from finetune.caption_check import FILE, CaptionCheck

    found = CaptionCheck.load(evaluation.run.finetune_dir / FILE)
    if found is None:
        return Metric(
            reason="the training did not measure it (doctor.captions=off, or an older version)"
        )
    return Metric.of(found.fit, "train")


def _on_val(val: CaptionLosses, kept: int, exported: int) -> dict[str, Metric]:
    """The metrics that need held-out pictures only."""
    from finetune.intervals import estimate

    groups, all_groups = val.exchanged.own.groups, val.items.groups
    on_val = partial(Metric.of, on="val")
    none = {row: val.against_none(row) for row in sorted({0, kept})}
    found = {
        "caption_gain_none_base": on_val(estimate(none[0], all_groups)),
        "caption_gain_none_kept": on_val(estimate(none[kept], all_groups)),
    }
    if few := _too_few(groups):
        return dict.fromkeys(_ON_VAL, few) | found
    base, after = val.against_other(0), val.against_other(kept)
    change = on_val(estimate(after - base, groups)) if kept else Metric(reason=_BASE_KEPT)
    return found | {
        "caption_gain_base": on_val(estimate(base, groups)),
        "caption_gain_kept": on_val(estimate(after, groups)),
        "caption_gain_change": change,
        "caption_fit_base": on_val(val.fit(0)),
        "caption_fit_kept": on_val(val.fit(kept)),
        "caption_fit_exported": on_val(val.fit(exported)),
    }


def _train_minus_val(evaluation: Evaluation, val: CaptionLosses) -> Metric:
    """How much more the gain against no caption rose on training pictures than on held-out ones."""
    if not (kept := evaluation.kept):
        return Metric(reason=_BASE_KEPT)
    train = evaluation.caption_losses("train")
    seen, held_out = (
        (side.against_none(kept) - side.against_none(0), side.items.groups) for side in (train, val)
    )
    from finetune.intervals import two_sample

    return Metric.of(two_sample(*seen, *held_out), "train and val")


def _too_few(groups: Sequence[str]) -> Metric | None:
    count = len(set(groups))
    if count >= SMALLEST_JUDGED:
        return None
    reason = (
        f"only {count} groups of pictures have a caption that another one's can take the place of; at least "
        f"{SMALLEST_JUDGED} needed"
    )
    return Metric(groups=count, reason=reason)


def sections(found: Results) -> Iterator[Section]:
    """The gains of base and kept, and what they say."""
    yield Section("Captions", "captions", _section(found))


def _section(found: Results) -> Markup:
    metrics = found.metrics
    absent = Metric(reason="this report is of a version that did not measure it")
    kept = metrics.get("caption_gain_kept", absent)
    if kept.value is None:
        return page.paragraph(f"Not measured: {kept.reason}.", "note")
    finding = " ".join(_finding(found))
    rows = [
        [text.title, text.shown(metrics[name]), metrics[name].on]
        for name, text in EVALUATOR.metrics.items()
        if metrics[name].value is not None
    ]
    return (
        page.figure(gains(found), finding, finding)
        + page.details("The numbers", page.table(["What", "Value", "Pictures"], rows))
        + page.paragraph(
            "Only the caption differs: picture, noise levels and noise are the same. How large a gain can be depends "
            "on the model and on how much the captions say. Fit is the gain divided by what it would be if all that "
            "captions change in the predictions of the base, or of the checkpoint where that is more, were right. "
            "Wrong captions and pictures that the model does not know lower it alike.",
            "note",
        )
    )


def _finding(found: Results) -> Iterator[str]:
    """What the numbers say, in sentences."""
    metrics, step = found.metrics, found.verdict.kept
    shown = EVALUATOR.metrics["caption_gain_kept"].shown
    name = f"step {step:,}" if step else "the base"
    kept, fit = metrics["caption_gain_kept"], metrics["caption_fit_kept"]
    yield (
        f"With another picture's caption instead of its own, a held-out picture's loss at {name} changes by "
        f"{shown(kept)} of the base's loss"
        + (f" (at the base: {shown(metrics['caption_gain_base'])})." if step else ".")
    )
    if fit.value is not None:
        yield _meaning(fit)[1]
    yield from (said.text for said in _memorised(metrics) if said.state != "good")


def _meaning(fit: Metric) -> tuple[str, str]:
    """Whether captions matter, as a finding's state and a sentence."""
    value = EVALUATOR.metrics["caption_fit_kept"].shown(fit)
    assert fit.low is not None
    assert fit.high is not None
    if fit.low > LEAST_FIT:
        return "good", f"Captions matter to it: fit {value}, where shuffled captions have 0."
    if fit.high < LEAST_FIT and fit.low > 0:
        return "bad", (
            f"Captions matter little to it: fit {value}, where shuffled captions have 0. Either many of them are "
            "wrong, or it hardly knows what they say."
        )
    if fit.high < LEAST_FIT:
        return "bad", (
            f"Captions do not matter to it: fit {value}, as with shuffled captions. Either most of them are wrong, "
            "or it does not know what they say."
        )
    if fit.low > 0:
        return "warn", f"Captions matter to it, perhaps only a little: fit {value}."
    return (
        "warn",
        f"Whether captions matter to it is not known from so few pictures: fit {value}.",
    )


def _memorised(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    return cost(
        metrics,
        _TRAIN_MINUS_VAL,
        "captions",
        "Captions of training pictures are memorised: against no caption, the gain rose more there than on "
        "held-out pictures",
        "Captions of training pictures are not memorised",
        MEMORISED,
    )


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """Whether captions matter to the kept checkpoint, and whether it memorised some."""
    if (fit := metrics.get("caption_fit_kept", Metric())).value is not None:
        state, text = _meaning(fit)
        said = text.replace("to it", "to the kept checkpoint", 1)
        yield FindingOn("cost", state, said, "captions", "caption_fit_kept")
    yield from _memorised(metrics)


def captions_hardly_matter(metrics: Mapping[str, Metric]) -> bool:
    """Whether captions surely matter little, or not at all, to the exported checkpoint."""
    fit = metrics.get("caption_fit_exported", Metric())
    return fit.high is not None and fit.high < LEAST_FIT


def gains(found: Results) -> Markup:
    """Gain of base and kept against another's caption and against none, with intervals."""
    drawing, panels = page.subplots(_WIDTH, 2.1, 1, 2, sharey=True)
    names = (("kept", page.VERMILLION), ("base", page.BLUE))
    for axes, kind, title in (
        (panels[0], "caption_gain", "against another's caption"),
        (panels[1], "caption_gain_none", "against no caption"),
    ):
        for row, (name, colour) in enumerate(names):
            metric = found.metrics[f"{kind}_{name}"]
            if metric.value is not None:
                draw_interval(axes, row, metric, colour, scale=100)
        axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(title, loc="left")
        axes.set_xlabel("gain, % of the base's loss")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks([0, 1], [name for name, _ in names])
    panels[0].set_ylim(-0.6, 1.6)
    return page.svg(drawing)


EVALUATOR = Evaluator(
    metrics={
        "caption_gain_base": Description(
            "Caption gain, base",
            "Loss of held-out pictures with another picture's caption minus loss with their own, same noise, in "
            "shares of the base's loss.",
            better="higher",
        ),
        "caption_gain_kept": Description(
            "Caption gain, kept",
            "The same for the kept checkpoint.",
            better="higher",
        ),
        "caption_gain_change": Description(
            "Caption gain, kept against base",
            "The difference of the two, picture by picture. It falls, too, where a base that reacted too strongly to "
            "captions learns to react less.",
            better="",
        ),
        "caption_fit_base": Description(
            "Caption fit, base",
            "Caption gain divided by the squared change of the prediction, which is what the gain is where a "
            "model reads all captions rightly: 0 is shuffled captions, 1 is right ones that the model knows.",
            better="higher",
            fraction=False,
        ),
        "caption_fit_kept": Description(
            "Caption fit, kept",
            "The same for the kept checkpoint. The change of the prediction is the base's, where that is the larger.",
            better="higher",
            fraction=False,
        ),
        "caption_fit_exported": Description(
            "Caption fit, export",
            "The same for the checkpoint in the export.",
            better="higher",
            fraction=False,
        ),
        _BEFORE: Description(
            "Caption fit before training",
            "The same for the base on training pictures, measured before the training.",
            better="higher",
            fraction=False,
        ),
        "caption_gain_none_base": Description(
            "Caption gain against no caption, base",
            "Loss of held-out pictures without a caption minus loss with their own. It is below zero where the "
            "model trusts captions more than it should.",
            better="higher",
        ),
        "caption_gain_none_kept": Description(
            "Caption gain against no caption, kept",
            "The same for the kept checkpoint.",
            better="higher",
        ),
        _TRAIN_MINUS_VAL: Description(
            "Caption gain against no caption, training against held-out",
            "How much more it rose, from base to kept, on training pictures than on held-out ones. Above zero "
            "the captions of training pictures are memorised.",
        ),
    },
    measure=measure,
    sections=sections,
    findings=findings,
    position=35,
)
_ON_VAL = [name for name in EVALUATOR.metrics if name not in (_BEFORE, _TRAIN_MINUS_VAL)]

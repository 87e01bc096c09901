"""Are the drawn pictures as a whole like the real ones, and are they as varied?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from curate.clip.models import label
from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, cost
from evaluate.measure.features import unit
from evaluate.metrics import kid
from evaluate.metrics.precision_recall import LEAST_PICTURES, precision_recall
from evaluate.metrics.vendi import log_ratio, vendi
from evaluate.results import BASE_KEPT, NOT_ASKED, NOT_MEASURED, Finding, Metric, Results
from finetune.intervals import Array, estimate, of_groups

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation
    from evaluate.measure_config import MeasureConfig

_KID = ("kid_base", "kid_kept", "kid_change", "kid_p_base", "kid_p_kept", "kid_floor")
_VARIETY = ("vendi_base", "vendi_kept", "vendi_change", "vendi_real")
_OF_A_CAPTION = ("caption_vendi_base", "caption_vendi_kept", "caption_vendi_change")
_LIKENESS = ("precision_base", "precision_kept", "recall_base", "recall_kept")
_ON = "val"
NOTICEABLE = 0.05  # of the base's variety; less is not called a cost


@dataclass(frozen=True, slots=True)
class Pictures:
    """Features [N, D] of the base's, the kept checkpoint's and the real pictures of N captions.

    Attributes:
        groups: the captions' duplicate groups [N].
    """

    base: Array
    kept: Array
    real: Array
    groups: Sequence[str]


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Base and the checkpoint to keep, drawn from the same noise, and the real pictures of the captions."""
    config = evaluation.config
    prompts = evaluation.prompts[: config.samples.clip_captions]
    groups = evaluation.groups_of([prompt.key for prompt in prompts])
    if reason := _reason(config, evaluation.kept, len(set(groups))):
        names = _KID + _VARIETY + _OF_A_CAPTION + _LIKENESS
        yield from dict.fromkeys(names, Metric(reason=reason)).items()
        return
    drawn = (evaluation.drawn[row][: len(prompts)] for row in (0, evaluation.kept))
    base, kept = map(evaluation.features.of_files, drawn)
    real = evaluation.real_features(evaluation.features, [prompt.key for prompt in prompts])
    pictures = Pictures(base, kept, real, groups)
    yield from distances(pictures, scaled=config.distribution.features == "clip")
    yield from variety(pictures)
    yield from _likeness(config, pictures)
    yield from _variety_of_captions(evaluation, groups)


def _reason(config: MeasureConfig, kept: int, groups: int) -> str:
    """Why nothing is measured; "" if it is."""
    if config.distribution.features == "off":
        return "left out by distribution.features=off"
    if not config.samples.clip_captions:
        return "left out by samples.clip_captions=0"
    if kept == 0:
        return f"{BASE_KEPT}; there is nothing to compare it with"
    if groups < kid.LEAST_GROUPS:
        return (
            f"captions of {groups} groups are drawn; at least {kid.LEAST_GROUPS} needed, of which the distance "
            "is known well enough to compare (samples.clip_captions, grid.items)"
        )
    return ""


def distances(pictures: Pictures, scaled: bool) -> Iterator[tuple[str, Metric]]:
    """KID of base and kept, their paired difference, and what two sets of real pictures show.

    Args:
        pictures: what was drawn and the real ones.
        scaled: whether features are unit vectors, which are then scaled to the length of sqrt(D): the kernel
            becomes (cosine + 1)³. Of vectors of length 1 it would see the mean and little else.
    """
    factor = np.sqrt(pictures.real.shape[1]) if scaled else 1.0
    base, kept, real = (factor * x for x in (pictures.base, pictures.kept, pictures.real))
    groups, n = pictures.groups, len(pictures.groups)
    of_base, of_kept = (kid.terms(x, real, groups) for x in (base, kept))
    for name, terms in (("base", of_base), ("kept", of_kept), ("change", of_kept - of_base)):
        yield f"kid_{name}", Metric.of(of_groups(kid.pseudo_values(terms), n), _ON)
    count = {"n": n, "groups": len(of_base), "on": _ON}
    for name, terms in (("base", of_base), ("kept", of_kept)):
        yield f"kid_p_{name}", Metric(kid.permutation_p(terms), **count)
    yield "kid_floor", Metric(kid.floor(real, groups), **count)


def variety(pictures: Pictures) -> Iterator[tuple[str, Metric]]:
    """Vendi scores of all pictures together."""
    groups, n = pictures.groups, len(pictures.groups)
    base, kept, real = (unit(x) for x in (pictures.base, pictures.kept, pictures.real))
    ratio = of_groups(log_ratio(kept, base, groups), n)
    low, value, high = np.expm1([ratio.low, ratio.value, ratio.high]).tolist()
    yield "vendi_change", Metric.of(replace(ratio, value=value, low=low, high=high), _ON)
    for name, features in (("base", base), ("kept", kept), ("real", real)):
        yield f"vendi_{name}", Metric(vendi(features, groups), n=n, groups=ratio.groups, on=_ON)


def _likeness(config: MeasureConfig, pictures: Pictures) -> Iterator[tuple[str, Metric]]:
    n, reason = len(pictures.groups), ""
    if not config.distribution.precision_recall:
        reason = f"{NOT_ASKED}, distribution.precision_recall=true measures them, on {LEAST_PICTURES} pictures or more"
    elif n < LEAST_PICTURES:
        reason = f"{n} captions are drawn; at least {LEAST_PICTURES} needed (samples.clip_captions)"
    if reason:
        yield from dict.fromkeys(_LIKENESS, Metric(reason=reason)).items()
        return
    for name, drawn in (("base", pictures.base), ("kept", pictures.kept)):
        found = precision_recall(drawn, pictures.real, pictures.groups)
        for kind, values in zip(("precision", "recall"), found, strict=True):
            yield f"{kind}_{name}", Metric.of(estimate(values, pictures.groups), _ON)


def _variety_of_captions(
    evaluation: Evaluation, groups: Sequence[str]
) -> Iterator[tuple[str, Metric]]:
    """Vendi scores of pictures of one caption from several noises, for one caption of each group."""
    settings = evaluation.config.distribution
    firsts = [groups.index(group) for group in dict.fromkeys(groups)][: settings.captions]
    if reason := _too_few(settings.captions, len(firsts)):
        yield from dict.fromkeys(_OF_A_CAPTION, Metric(reason=reason)).items()
        return
    prompts = [evaluation.prompts[i] for i in firsts]
    scores: list[Array] = []
    for row in (0, evaluation.kept):
        sets = [[evaluation.drawn[row][i] for i in firsts]]
        sets += [evaluation.draw(row, prompts, again) for again in range(1, settings.seeds)]
        features = np.stack([unit(evaluation.features.of_files(files)) for files in sets], axis=1)
        scores.append(np.array([vendi(one) for one in features]))
    base, kept = scores
    for name, values in zip(_OF_A_CAPTION, (base, kept, kept - base), strict=True):
        found = estimate(values)
        yield name, Metric.of(replace(found, n=found.n * settings.seeds), _ON)


def _too_few(asked: int, groups: int) -> str:
    if not asked:
        return "left out by distribution.captions=0"
    least = 16
    if groups < least:
        return f"{groups} captions are drawn several times; at least {least} needed (distribution.captions)"
    return ""


def _instrument(config: MeasureConfig) -> str:
    settings = config.distribution
    named = {
        "clip": label(config.clip),
        "vae": "the model's VAE",
        "timm": f"timm's {settings.timm_model}",
    }
    return f"measured with {named[settings.features]}" if settings.features in named else ""


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """What distance and variety cost, if noticeable; less variety than the base's, above the real ones', is no cost."""
    floor = metrics.get("kid_floor", Metric()).value or 0.0
    yield from cost(
        metrics,
        "kid_change",
        "distribution",
        "Pictures as a whole are less like real ones than the base's",
        "Pictures as a whole are as like real ones as the base's, or more",
        floor,
    )
    kept, real = (metrics.get(name, Metric()).value for name in ("vendi_kept", "vendi_real"))
    if kept is not None and real is not None and kept >= real:
        text = f"Pictures are as varied as real ones: {kept:.3g} different ones, real pictures {real:.3g}."
        yield Finding("cost", "good", text, "distribution")
        return
    yield from cost(
        metrics,
        "vendi_change",
        "distribution",
        "Pictures are less varied than the base's",
        "Pictures are as varied as the base's",
        NOTICEABLE,
    )


def sections(found: Results) -> Iterator[Section]:
    """One finding in words, and base, kept and real pictures in a table."""
    yield Section("Distribution and variety", "distribution", _section(found))


def _section(found: Results) -> Markup:
    change = found.metrics.get("kid_change", Metric(reason="another version"))
    if change.value is None:
        return page.paragraph(f"Not measured: {change.reason}.", "note")
    rows = [
        ["Distance to real pictures (KID)", *_cells(found, "kid_base", "kid_kept", "kid_floor")],
        ["Different pictures among all (Vendi)", *_cells(found, *_VARIETY[:2], "vendi_real")],
        ["Different pictures of one caption (Vendi)", *_cells(found, *_OF_A_CAPTION[:2]), ""],
    ]
    for kind in ("precision", "recall"):
        if found.metrics[f"{kind}_base"].value is not None:
            names = (f"{kind}_base", f"{kind}_kept")
            rows.append([kind.capitalize(), *_cells(found, *names), ""])
    head = ["Measure", "Base", "Kept", "Real pictures"]
    notes = (
        f"On {change.n} pictures for held-out captions, in {change.groups} groups; {_by(found)}. The distance in "
        "the column of real pictures is what two sets of as many real pictures stay below in 95 of 100 cases."
    )
    return page.paragraph(finding(found)) + page.table(head, rows) + page.paragraph(notes, "note")


def finding(found: Results) -> str:
    """What the distances and the variety say, in sentences."""
    kept, floor = found.metrics["kid_kept"].value, found.metrics["kid_floor"].value
    assert kept is not None
    assert floor is not None
    said = [
        f"The kept checkpoint's pictures are {_direction(found, 'kid_change', 'closer to', 'farther from')} real "
        f"ones {_than_base(found, 'kid_change')}.",
        "They are as far from them as another set of real pictures may be."
        if kept <= floor
        else "They are farther from them than another set of real pictures would be.",
    ]
    for name, of in (("vendi_change", "Together"), ("caption_vendi_change", "For one caption")):
        if found.metrics[name].value is not None:
            direction = _direction(found, name, "less varied than", "more varied than")
            said.append(f"{of}, they are {direction} the base's ({_shown(found, name)}).")
        elif name in _OF_A_CAPTION:
            said.append(
                f"The variety for one caption: {NOT_MEASURED}, {found.metrics[name].reason}."
            )
    return " ".join(said)


def _direction(found: Results, name: str, less: str, more: str) -> str:
    """Which of two words a change's interval says; neither, where it holds zero."""
    low, high = found.metrics[name].low, found.metrics[name].high
    assert low is not None
    assert high is not None
    if low <= 0 <= high:
        return f"neither clearly {less} nor clearly {more}"
    return less if high < 0 else more


def _than_base(found: Results, name: str) -> str:
    return f"than the base's ({_shown(found, name)})"


def _shown(found: Results, name: str) -> str:
    return EVALUATOR.metrics[name].shown(found.metrics[name])


def _cells(found: Results, *names: str) -> list[str]:
    """Values without a sign, with their intervals where they have one."""
    return [plain(found.metrics[name]) for name in names]


def plain(metric: Metric) -> str:
    """A number that is no change, with its interval.

    >>> plain(Metric(0.6667, 0.5, 0.8)), plain(Metric(17.94)), plain(Metric(reason="off"))
    ('0.667 [0.500, 0.800]', '17.9', 'not measured')
    """
    if metric.value is None:
        return NOT_MEASURED
    if metric.low is None or metric.high is None:
        return page.number(metric.value)
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


def _by(found: Results) -> str:
    known = found.provenance["evaluate"]
    features = known.get("distribution", {}).get("features", "clip")
    if features == "vae":
        return (
            "compared by the model's VAE, which sees colours and layout and little of what is shown"
        )
    if features == "timm":
        return f"compared by timm's {page.clean(str(known['distribution']['timm_model']))}"
    name = page.clean(str(known["clip"]["name"]))
    return f"compared by the CLIP of prompt following, {name}"


def _described() -> dict[str, Description]:
    """Of every metric, in the order of the tables."""
    kid_meaning = (
        "Kernel Inception Distance of pictures drawn for held-out captions from the real pictures of those "
        "captions: 0 is no difference, and it may come out below 0. Numbers compare within one report only."
    )
    p_meaning = (
        "How often a distance as large comes up if drawn and real pictures are swapped at random: small is a "
        "difference that is not chance."
    )
    vendi_meaning = (
        "Vendi score: how many quite different pictures all of them amount to. It grows with their number; "
        "compare base, kept and real pictures of one report."
    )
    caption_meaning = (
        "Vendi score of pictures of one caption from different noise: 1 is always the same picture."
    )
    precision_meaning = "Share of drawn pictures that lie among real ones."
    recall_meaning = (
        "Share of real pictures that lie among drawn ones; low where a model draws little variety."
    )
    distance, real = "Distance to real pictures", "real pictures"

    def said(
        title: str, meaning: str, better: str = "higher", fraction: bool = False
    ) -> Description:
        return Description(title, meaning, better, fraction)  # type: ignore[arg-type]

    change = "The difference of the two, compared group by group of captions, same seeds."
    return {
        "kid_base": said(f"{distance}, base", kid_meaning, "lower"),
        "kid_kept": said(f"{distance}, kept", "The same for the kept checkpoint.", "lower"),
        "kid_change": said(f"{distance}, kept against base", change, "lower"),
        "kid_p_base": said(f"{distance}, chance of the base's", p_meaning, ""),
        "kid_p_kept": said(f"{distance}, chance of the kept one's", p_meaning, ""),
        "kid_floor": said(
            f"{distance}, {real}",
            "What two sets of as many real pictures stay below in 95 of 100 cases.",
            "",
        ),
        "vendi_base": said("Variety, base", vendi_meaning),
        "vendi_kept": said("Variety, kept", "The same for the kept checkpoint."),
        "vendi_change": said("Variety, kept against base", change, fraction=True),
        "vendi_real": said(f"Variety, {real}", "The same for the real pictures.", ""),
        "caption_vendi_base": said("Variety of one caption, base", caption_meaning),
        "caption_vendi_kept": said("Variety of one caption, kept", caption_meaning),
        "caption_vendi_change": said("Variety of one caption, kept against base", change),
        "precision_base": said("Precision and recall, precision of base", precision_meaning),
        "precision_kept": said("Precision and recall, precision of kept", precision_meaning),
        "recall_base": said("Precision and recall, recall of base", recall_meaning),
        "recall_kept": said("Precision and recall, recall of kept", recall_meaning),
    }


EVALUATOR = Evaluator(
    metrics=_described(),
    measure=measure,
    sections=sections,
    findings=findings,
    instrument=_instrument,
    position=47,
)

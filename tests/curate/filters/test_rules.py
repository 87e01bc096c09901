"""One case for each reason, and the boundaries."""

from dataclasses import fields, replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from curate.annotate.spec import needed
from curate.filters.caption import CaptionFilterConfig
from curate.filters.captions import CaptionsConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.consent import ConsentConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.language import LanguageFilterConfig
from curate.filters.prefilter import Prefilter
from curate.filters.similarity import ClipSimilarityConfig
from curate.run.schema import UserError
from tests.curate.decide.judging import reasons


def pair(**changes):
    row = {
        "key": "a",
        "caption_index": 0,
        "has_caption": True,
        "caption": "a small cat",
        "width": 400,
        "height": 300,
        "bytes": 20_000,
        "tokens": 5,
        "language": "en",
        "language_confidence": 0.9,
        "aesthetic": 5.0,
        "source_nsfw": "UNLIKELY",
        "licence": "CC BY",
        "clip_similarity": 0.3,
        **dict.fromkeys(("data_mining", "digital_source", "c2pa_training", "c2pa_source")),
    }
    return row | changes


def frame(*rows):
    return pd.DataFrame(list(rows)).astype({"clip_similarity": np.float32})


STRICT = FiltersConfig(
    consent=ConsentConfig(reserved="drop", ai_generated="drop", c2pa=True),
    image=ImageFilterConfig(
        min_side_px=200, max_aspect=3.0, max_pixels=1_000_000, min_bytes=5000, max_bytes=20_000
    ),
    caption=CaptionFilterConfig(
        min_characters=6,
        max_characters=60,
        min_words=2,
        max_words=20,
        max_tokens=77,
        min_alphanumeric=0.5,
        max_character_repetition=0.25,
        repetition_characters=11,
        max_word_repetition=0.5,
        repetition_words=1,
        blocklist=["rat", "Hot Dog"],
        contacts="drop",
        max_occurrences=1,
    ),
    language=LanguageFilterConfig(accepted=["en", "de"], min_confidence=0.3),
    columns={
        "aesthetic": {"minimum": 4.5, "maximum": 6.3},
        "source_nsfw": {"reject": ["NSFW", "unsure"]},
        "licence": {"accept": ["CC BY", 4]},
    },
)


# What is changed of a pair that passes, and the reason why STRICT then drops it ("": it passes).
CASES = [
    ({}, ""),
    ({"has_caption": False, "caption": ""}, "no_caption"),
    ({"caption": ""}, "empty_caption"),
    (
        {"caption": "a caf\ufffd in town"},
        "caption_garbled: holds U+FFFD in place of bytes that are no text",
    ),
    ({"height": 200}, ""),
    ({"height": 199}, "min_side_px < 200"),
    ({"width": 199}, "min_side_px < 200"),
    ({"width": 900}, ""),
    ({"width": 901}, "aspect > 3"),
    ({"height": 1201}, "aspect > 3"),
    ({"width": 1000, "height": 1000}, ""),
    ({"width": 1001, "height": 1000}, "pixels > 1000000"),
    ({"bytes": 5000}, ""),
    ({"bytes": 4999}, "bytes < 5000"),
    ({"bytes": 20_001}, "bytes > 20000"),
    ({"caption": "two ww"}, ""),
    ({"caption": "two w"}, "caption_characters < 6"),
    ({"caption": "größer"}, "caption_words < 2"),
    ({"caption": "abcdefghij klmnop " + "q" * 43}, "caption_characters > 60"),
    ({"caption": "single"}, "caption_words < 2"),
    ({"caption": " ".join("abcdefghijklmnopqrst")}, ""),
    ({"caption": " ".join("abcdefghijklmnopqrstu")}, "caption_words > 20"),
    ({"tokens": 77}, ""),
    ({"tokens": 78}, "caption_tokens > 77"),
    ({"caption": "abc d --- -"}, "caption_alphanumeric < 0.5"),
    ({"caption": "abcd +---"}, "caption_alphanumeric < 0.5"),
    ({"caption": "ab c+--"}, "caption_alphanumeric < 0.5"),
    ({"caption": "abc 1 !!"}, ""),  # 4 of 8
    ({"caption": "हिन्दी में"}, ""),
    ({"caption": "left right left right up up"}, "caption_word_repetition > 0.5"),
    ({"caption": "up up left right"}, ""),  # 2 of 4
    ({"caption": "x" * 12 + " yes"}, "caption_character_repetition > 0.25"),  # 2 of 6
    ({"caption": "x" * 11 + " yes"}, ""),
    ({"caption": "a rat, grey"}, "caption_blocklist: holds a listed word"),
    ({"caption": "two RAT"}, "caption_blocklist: holds a listed word"),
    ({"caption": "a hot dog"}, "caption_blocklist: holds a listed word"),
    ({"caption": "rats and a hot cat"}, ""),
    (
        {"caption": "cats at www.cats.example"},
        "caption_contacts: holds a URL, an e-mail address or a telephone number",
    ),
    ({"language": "de"}, ""),
    ({"language": "fr"}, "language is not en or de"),
    ({"language": ""}, "language is not en or de"),
    ({"language_confidence": 0.3}, ""),
    ({"language_confidence": 0.2999}, "language is not en or de"),
    ({"data_mining": "DMI-ALLOWED"}, ""),
    ({"data_mining": "DMI-PROHIBITED"}, "reserved: data_mining prohibits training"),
    ({"c2pa_training": "constrained"}, "reserved: c2pa_training does not allow training"),
    ({"digital_source": "digitalCapture"}, ""),
    ({"digital_source": "trainedAlgorithmicMedia"}, "ai_generated: digital_source names a model"),
    ({"c2pa_source": "trainedAlgorithmicMedia"}, "ai_generated: c2pa_source names a model"),
    ({"aesthetic": 4.5}, ""),
    ({"aesthetic": 6.3}, ""),
    ({"aesthetic": 4.49}, "aesthetic < 4.5"),
    ({"aesthetic": 6.31}, "aesthetic > 6.3"),
    ({"aesthetic": np.nan}, "aesthetic is missing"),
    ({"source_nsfw": "nsfw "}, "source_nsfw is NSFW or unsure"),
    ({"source_nsfw": "UNSURE"}, "source_nsfw is NSFW or unsure"),
    ({"source_nsfw": "NSFW?"}, ""),
    ({"source_nsfw": None}, "source_nsfw is missing"),
    ({"source_nsfw": " "}, "source_nsfw is missing"),
    ({"licence": "cc by"}, ""),
    ({"licence": 4.0}, ""),
    ({"licence": "CC BY-NC"}, "licence is not CC BY or 4"),
    ({"clip_similarity": np.nan}, "no_similarity: CLIP gave no number"),
    ({"clip_similarity": 0.28}, ""),
    ({"clip_similarity": 0.279999}, "clip_similarity < 0.28"),
]


@pytest.mark.parametrize(("changes", "reason"), CASES)
def test_reasons_and_boundaries(changes, reason):
    assert reasons(STRICT, frame(pair(**changes)), cut=0.28) == [reason]


# Read outside of `rules`: by `decide.cut`, which makes the cut, and by `decide.duplicates`.
APPLIED_BY_DECIDE = {"clip_similarity.minimum", "clip_similarity.false_keep_rate"} | {
    "clip_similarity.made_for",
    *(f"duplicates.{each.name}" for each in fields(DuplicatesConfig)),
}


def settings():
    """The dotted name of every setting of a filter."""
    for group in fields(FiltersConfig):
        schema = ColumnConfig if group.name == "columns" else group.default_factory
        yield from (f"{group.name}.{each.name}" for each in fields(schema))


def reset(config, setting):
    """``config`` with one setting at its default; in ``columns`` that of every column."""
    group, name = setting.split(".")

    def to_default(part):
        return replace(part, **{name: getattr(type(part)(), name)})

    part = getattr(config, group)
    if group == "columns":
        return replace(config, columns={column: to_default(part[column]) for column in part})
    return replace(config, **{group: to_default(part)})


@pytest.mark.parametrize("setting", sorted(set(settings()) - APPLIED_BY_DECIDE))
def test_every_setting_changes_a_verdict(setting):
    """Fails for a new setting until a rule reads it and STRICT and a case show what it does."""
    pairs = frame(*(pair(key=str(i), **changes) for i, (changes, _) in enumerate(CASES)))
    examples = [
        (STRICT, pairs),
        (FiltersConfig(caption=CaptionFilterConfig(garbled="keep")), pairs),
        (FiltersConfig(language=LanguageFilterConfig(rejected=["fr"])), pairs),
        (FiltersConfig(columns={"aesthetic": {"minimum": 4, "keep_missing": True}}), pairs),
        (FiltersConfig(clip_similarity=ClipSimilarityConfig(fraction=0.5)), pairs),
        (FiltersConfig(captions=CaptionsConfig(keep="best", at_least=2)), several()),
    ]
    assert any(
        reasons(config, given) != reasons(reset(config, setting), given)
        for config, given in examples
    ), f"no rule reads filters.{setting}, or no case shows what it does"


@pytest.mark.parametrize("group", ["image", "caption", "language"])
def test_what_the_rules_read_is_measured(group):
    """`annotate.spec.needed` names the optional measures of every setting, taken alone."""
    filled_by = {"tokens": "tokens", "language": "language", "language_confidence": "language"}
    part = getattr(STRICT, group)
    for setting in fields(part):
        alone = replace(type(part)(), **{setting.name: getattr(part, setting.name)})
        config = replace(FiltersConfig(), **{group: alone})
        measured = needed(config, ())
        missing = [column for column, name in filled_by.items() if name not in measured]
        reasons(config, frame(pair()).drop(columns=missing))  # or KeyError


def test_large_counts_are_compared_exactly():
    config = FiltersConfig(image=ImageFilterConfig(max_pixels=89_478_484))
    pairs = frame(pair(width=2, height=44_739_242), pair(width=5, height=17_895_697))
    assert reasons(config, pairs) == ["", "pixels > 89478484"]


def test_nothing_asked_for_nothing_dropped():
    assert reasons(FiltersConfig(), frame(pair(width=1, clip_similarity=-1.0))) == [""]


def test_no_pairs_no_verdicts():
    assert reasons(STRICT, frame(pair()).iloc[:0], cut=0.28) == []


def test_a_score_may_be_missing_where_it_is_said_so():
    config = FiltersConfig(columns={"aesthetic": {"minimum": 4, "keep_missing": True}})
    assert reasons(config, frame(pair(aesthetic=np.nan), pair(aesthetic=3.0))) == [
        "",
        "aesthetic < 4",
    ]


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"accepted": ["en"]}, "ab"),
        ({"accepted": ["en"], "min_confidence": 0.5}, "a"),
        ({"accepted": ["und"], "min_confidence": 0.5}, "bd"),
        ({"rejected": ["en", "und"], "min_confidence": 0.5}, "c"),
        ({"rejected": ["en"]}, "cd"),
    ],
)
def test_an_unsure_language_is_undetermined(config, kept):
    given = [("a", "en", 0.9), ("b", "en", 0.4), ("c", "de", 0.9), ("d", "", 0.0)]
    pairs = frame(
        *(pair(key=k, language=code, language_confidence=sure) for k, code, sure in given)
    )
    found = reasons(FiltersConfig(language=LanguageFilterConfig(**config)), pairs)
    assert "".join(pairs["key"][[not reason for reason in found]]) == kept


def test_captions_that_come_too_often():
    config = FiltersConfig(caption=CaptionFilterConfig(max_occurrences=2))
    captions = ["image", "Image", "photo", "image", "photo", "image"]
    pairs = frame(*(pair(key=str(i), caption=c) for i, c in enumerate(captions)))
    often = "caption_occurrences > 2"
    assert reasons(config, pairs) == [often, "", "", often, "", often]


def several():
    """Image a: similarities .4 .2 .4, image b: .1 .3, image c: .2."""
    given = [
        ("a", 0, 0.4),
        ("a", 1, 0.2),
        ("a", 2, 0.4),
        ("b", 0, 0.1),
        ("b", 1, 0.3),
        ("c", 0, 0.2),
    ]
    rows = [pair(key=key, caption_index=i, clip_similarity=s) for key, i, s in given]
    return frame(*rows).iloc[::-1]  # an order that is neither key's nor similarity's


@pytest.mark.parametrize(
    ("config", "cut", "kept"),
    [
        ({}, None, "a0 a1 a2 b0 b1 c0"),
        ({"keep": "best"}, None, "a0 b1 c0"),
        ({"at_least": 2}, None, "a0 a1 a2 b0 b1"),
        ({"at_least": 2}, 0.15, "a0 a1 a2"),
        ({"at_least": 3, "keep": "best"}, None, "a0"),
        ({"at_least": 4}, None, ""),
    ],
)
def test_images_with_several_captions(config, cut, kept):
    pairs = several()
    found = reasons(FiltersConfig(captions=CaptionsConfig(**config)), pairs, cut)
    left = pairs[[not reason for reason in found]]
    assert " ".join(sorted(left["key"] + left["caption_index"].astype(str))) == kept
    named = {reason.split(":")[0] for reason in found if reason}
    assert named <= {"too_few_captions", "not_best_caption", "clip_similarity < 0.15"}


def not_most_similar(fraction, pairs):
    """Mask: pairs that a fraction drops."""
    config = FiltersConfig(clip_similarity=ClipSimilarityConfig(fraction=fraction))
    return np.array([bool(reason) for reason in reasons(config, pairs)])


@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.3, 0.5, 0.57, 1.0])
@pytest.mark.parametrize("count", [1, 10, 100])
def test_fraction_is_exact_whatever_the_ties(fraction, count):
    rng = np.random.default_rng(0)
    scores = rng.choice([0.1, 0.2, 0.3], count)
    pairs = frame(*(pair(key=f"{i:03d}", clip_similarity=s) for i, s in enumerate(scores)))
    dropped = not_most_similar(fraction, pairs)
    order = sorted(range(count), key=lambda i: (-scores[i], i))
    keep = max(1, int(Decimal(str(fraction)) * count))
    assert pairs.index[~dropped].tolist() == sorted(order[:keep])
    shuffled = pairs.sample(frac=1, random_state=1)
    again = shuffled[~not_most_similar(fraction, shuffled)]
    assert set(again["key"]) == set(pairs["key"][~dropped])


def test_a_fraction_is_not_datacomps_off_by_one():
    """DataComp's ``scores >= sorted(scores)[::-1][int(n * f)]`` keeps one more, and fails at 1.0."""
    scores = np.arange(10) / 10
    pairs = frame(*(pair(key=str(i), clip_similarity=s) for i, s in enumerate(scores)))
    theirs = int((scores >= np.sort(scores)[::-1][int(10 * 0.3)]).sum())
    ours = int((~not_most_similar(0.3, pairs)).sum())
    assert (theirs, ours) == (4, 3)
    assert not not_most_similar(1.0, pairs).any()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ClipSimilarityConfig(minimum=2.8), r"filters.clip_similarity.minimum=2.8"),
        (lambda: ClipSimilarityConfig(fraction=0), r"filters.clip_similarity.fraction=0"),
        (lambda: ClipSimilarityConfig(minimum=0.3, fraction=0.3), r"fraction=null"),
        (lambda: ImageFilterConfig(max_aspect=0.5), r"filters.image.max_aspect=0.5"),
        (lambda: ImageFilterConfig(max_pixels=0), r"filters.image.max_pixels=0"),
        (lambda: ImageFilterConfig(min_bytes=9, max_bytes=8), r"filters.image.max_bytes=8"),
        (lambda: CaptionFilterConfig(min_words=5, max_words=4), r"filters.caption.max_words=4"),
        (lambda: CaptionFilterConfig(max_tokens=0), r"filters.caption.max_tokens=0"),
        (lambda: CaptionFilterConfig(max_occurrences=0), r"filters.caption.max_occurrences=0"),
        (lambda: CaptionFilterConfig(min_alphanumeric=60), r"caption.min_alphanumeric=60"),
        (lambda: CaptionFilterConfig(repetition_words=0), r"filters.caption.repetition_words=0"),
        (lambda: CaptionFilterConfig(blocklist=[1]), r"filters.caption.blocklist=\[1\]"),
        (lambda: CaptionFilterConfig(contacts="scrub"), r"filters.caption.contacts=scrub"),
        (lambda: LanguageFilterConfig(accepted=[]), r"filters.language.accepted=\[\]"),
        (lambda: LanguageFilterConfig(accepted=["English"]), r"filters.language.accepted="),
        (lambda: LanguageFilterConfig(["en"], ["de"]), r"filters.language.rejected=null"),
        (lambda: LanguageFilterConfig(min_confidence=50), r"language.min_confidence=50"),
        (lambda: CaptionsConfig(keep="worst"), r"filters.captions.keep=worst"),
        (lambda: CaptionsConfig(at_least=0), r"filters.captions.at_least=0"),
        (lambda: FiltersConfig(columns={"a": {"minimum": "x"}}), r"filters.columns.a.minimum=x"),
        (
            lambda: FiltersConfig(columns={"a": {"minimum": 2, "maximum": 1}}),
            r"columns.a.maximum=1",
        ),
        (
            lambda: FiltersConfig(columns={"a": {"min": 2}}),
            r"minimum, maximum, accept, reject, keep_missing",
        ),
        (lambda: FiltersConfig(columns={"a": {"keep_missing": 1}}), r"columns.a.keep_missing=1"),
        (
            lambda: FiltersConfig(columns={"a": {"reject": "NSFW"}}),
            r"columns.a.reject=NSFW .*\[NSFW\]",
        ),
        (lambda: FiltersConfig(columns={"a": {"accept": []}}), r"columns.a.accept=\[\]"),
        (
            lambda: FiltersConfig(columns={"a": {"accept": ["x"], "minimum": 1}}),
            r"columns.a=.*a range or texts, not both",
        ),
    ],
)
def test_values_out_of_range_name_their_key(make, key):
    with pytest.raises(UserError, match=key):
        make()


def test_columns_may_be_switched_off():
    config = FiltersConfig(columns={"a": None, "b": {"minimum": 1}})
    assert config.columns == {"b": ColumnConfig(minimum=1)}


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    config = FiltersConfig(columns={"punsafe": {"maximum": 0.5}})
    with pytest.raises(UserError, match=r"punsafe.*aesthetic"):
        reasons(config, frame(pair()))
    with pytest.raises(UserError, match="not all values are numbers"):
        reasons(FiltersConfig(columns={"caption": {"maximum": 0.5}}), frame(pair()))


@pytest.mark.parametrize(("width", "bound"), [(330, 3.3), (190, 1.9), (300, 3.0)])
def test_the_aspect_of_the_bound_itself_stays(width, bound):
    config = FiltersConfig(image=ImageFilterConfig(max_aspect=bound))
    assert reasons(config, frame(pair(width=width, height=100))) == [""]
    assert reasons(config, frame(pair(width=width + 1, height=100))) == [f"aspect > {bound:g}"]


def test_whole_numbers_are_bounded_exactly():
    config = FiltersConfig(columns={"taken": {"minimum": 2**24 + 1}})
    rows = frame(pair(taken=2**24), pair(taken=2**24 + 1))
    assert reasons(config, rows) == [f"taken < {2**24 + 1}", ""]


def test_rules_on_pictures_and_captions_need_nothing_but_header_and_caption():
    """The prefilter applies them before a picture is decoded: no other column is there by then."""
    prefilter = Prefilter(STRICT.image, STRICT.caption)
    assert prefilter.passes_captions([pair()["caption"]]).tolist() == [True]
    size = tuple(pair()[name] for name in ("width", "height", "bytes"))
    assert prefilter.passes_images([size]).tolist() == [True]


def test_garbled_captions_stay_only_where_they_are_asked_for():
    garbled = frame(pair(caption="a caf\ufffd"))
    assert reasons(FiltersConfig(), garbled)[0].startswith("caption_garbled")
    asked = FiltersConfig(caption=CaptionFilterConfig(garbled="keep"))
    assert reasons(asked, garbled) == [""]
    with pytest.raises(UserError, match="keep, drop"):
        CaptionFilterConfig(garbled="maybe")

"""Rules on consent: what is reserved or drawn goes, what says nothing stays, and nothing is asked unasked."""

import pandas as pd
import pytest

from curate.annotate.config import AnnotateConfig
from curate.annotate.spec import AnnotationSpec
from curate.clip.config import ClipConfig
from curate.filters import columns
from curate.filters.config import FiltersConfig
from curate.filters.consent import ConsentConfig, rules
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.readers.tables import TableConfig
from curate.run.schema import UserError

PAIRS = pd.DataFrame(
    [
        ("says nothing", None, None, None, None),
        ("allowed", "DMI-ALLOWED", "digitalCapture", "allowed", "digitalCapture"),
        ("prohibited", "DMI-PROHIBITED", None, None, None),
        ("see constraint", "DMI-PROHIBITED-SEECONSTRAINT", None, None, None),
        ("signed no", None, None, "notAllowed", None),
        ("signed perhaps", "DMI-ALLOWED", None, "constrained", None),
        ("unreadable", None, None, "unreadable", None),
        ("drawn", None, "trainedAlgorithmicMedia", None, None),
        ("painted into", None, "compositeWithTrainedAlgorithmicMedia", None, None),
        ("signed as drawn", None, None, None, "trainedAlgorithmicMedia"),
    ],
    columns=["name", "data_mining", "digital_source", "c2pa_training", "c2pa_source"],
).set_index("name")


def dropped(**settings):
    gone = pd.Series(False, PAIRS.index)
    for rule in rules(ConsentConfig(**settings)):
        gone |= rule.drops(PAIRS)
    return set(PAIRS.index[gone])


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({}, set()),
        ({"reserved": "keep", "ai_generated": "keep"}, set()),
        ({"reserved": "drop"}, {"prohibited", "see constraint"}),
        (
            {"reserved": "drop", "c2pa": True},
            {"prohibited", "see constraint", "signed no", "signed perhaps"},
        ),
        ({"ai_generated": "drop"}, {"drawn", "painted into"}),
        ({"ai_generated": "drop", "c2pa": True}, {"drawn", "painted into", "signed as drawn"}),
    ],
)
def test_each_setting_drops_what_it_names(settings, gone):
    assert dropped(**settings) == gone


def test_what_the_note_on_unreadable_credentials_types_drops_these_alone():
    typed = {"c2pa_training": {"reject": ["unreadable"], "keep_missing": True}}
    gone = pd.Series(False, PAIRS.index)
    for rule in columns.rules(FiltersConfig(columns=typed).columns):
        gone |= rule.drops(PAIRS)
    assert set(PAIRS.index[gone]) == {"unreadable"}


def test_a_rule_reads_only_the_columns_that_it_asks_for():
    for settings in ({"reserved": "drop"}, {"ai_generated": "drop", "c2pa": True}):
        config = ConsentConfig(**settings)
        for rule in rules(config):
            rule.drops(PAIRS[list(config.columns)])


def test_a_column_without_any_value_drops_nothing():
    empty = pd.DataFrame({"data_mining": [None, float("nan")]})
    (rule,) = rules(ConsentConfig(reserved="drop"))
    assert rule.drops(empty).tolist() == [False, False]
    assert rule.drops(empty.iloc[:0]).tolist() == []


def test_unless_asked_nothing_more_is_measured():
    """Or every curation would read all its pictures once more."""
    clip = ClipConfig("ViT-B-32-quickgelu", "openai")
    spec = AnnotationSpec.of(clip, FiltersConfig(), AnnotateConfig())
    assert spec.measures == {}


def curation(dataset, **settings):
    clip = ClipConfig("ViT-B-32-quickgelu", "openai")
    filters = FiltersConfig(consent=ConsentConfig(**settings))
    return CurateConfig(dataset=dataset, clip=clip, filters=filters)


def test_other_peoples_pictures_are_asked_by_default_and_own_ones_are_not():
    own = FolderConfig(name="mine", reader="folder", root="pictures")
    theirs = TableConfig(name="cc12m", reader="table", path="cc12m.tsv")
    assert curation(own).filters.consent.columns == ()
    assert curation(theirs).filters.consent.columns == ("data_mining",)
    assert curation(theirs, reserved="keep").filters.consent.columns == ()
    assert curation(own, reserved="drop").filters.consent.columns == ("data_mining",)


def test_settings_out_of_range_and_idle_ones_are_refused():
    with pytest.raises(UserError, match=r"filters\.consent\.reserved=remove .* keep, drop"):
        ConsentConfig(reserved="remove")
    own = FolderConfig(name="mine", reader="folder", root="pictures")
    with pytest.raises(UserError, match=r"filters\.consent\.reserved=drop or"):
        curation(own, c2pa=True)

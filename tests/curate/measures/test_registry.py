"""The registry of measures: it agrees with the modules, and knows what the filters need."""

from importlib import import_module

import pytest

from curate.annotate.spec import needed
from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.filters.language import LanguageFilterConfig
from curate.measures import registry


@pytest.mark.parametrize("name", registry.PICTURE_COLUMNS)
def test_columns_are_those_of_the_module(name):
    assert registry.PICTURE_COLUMNS[name] == import_module(f"curate.measures.{name}").COLUMNS


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (FiltersConfig(), ()),
        (
            FiltersConfig(columns={"sharpness": {"minimum": 0.3}, "punsafe": {"maximum": 1}}),
            ("quality",),
        ),
        (FiltersConfig(language=LanguageFilterConfig(accepted=["en"])), ("language",)),
        (FiltersConfig(language=LanguageFilterConfig(rejected=["en"])), ("language",)),
        (FiltersConfig(caption=CaptionFilterConfig(max_tokens=77)), ("tokens",)),
    ],
)
def test_what_the_filters_need_is_measured(filters, names):
    assert needed(filters, []) == names
    assert set(needed(filters, ["nsfw"])) == {*names, "nsfw"}

"""The registry of measures: columns that modules fill, what the filters need, a light import."""

import subprocess
import sys

import pytest
from PIL import Image

from curate.annotate.spec import needed
from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.filters.consent import ConsentConfig
from curate.filters.language import LanguageFilterConfig
from curate.measures import registry


@pytest.mark.parametrize("measure", registry.image_measures(registry.MEASURES))
def test_columns_of_images_are_those_that_are_filled(measure):
    if measure.package:
        pytest.importorskip(measure.package.replace("-", "_"))
    assert tuple(measure.measure(Image.new("RGB", (64, 48)))) == measure.columns


@pytest.mark.parametrize("measure", registry.file_measures(registry.MEASURES))
def test_columns_of_files_are_those_that_are_filled(measure):
    if measure.package:
        pytest.importorskip(measure.package.removesuffix("-python"))
    assert tuple(measure.measure(b"")) == measure.columns
    assert registry.TEXTS.issuperset(measure.columns)


@pytest.mark.parametrize("measure", registry.caption_measures(registry.MEASURES))
def test_columns_of_captions_are_those_that_are_filled(measure):
    if measure.package:
        pytest.importorskip(measure.package.replace("-", "_"))
    found = measure.measure(["a cat", "a dog"], lambda captions: [4] * len(captions))
    assert tuple(found) == measure.columns
    assert {len(values) for values in found.values()} == {2}


def test_a_version_says_what_computes_a_measure():
    versions = registry.versions(registry.MEASURES)
    assert versions["quality"] == versions["tokens"] == ""
    assert all(versions[name] for name in ("nsfw", "text_share", "language"))


def test_checking_a_configuration_imports_nothing_heavy():
    code = (
        "import sys, curate.annotate.config; "
        "sys.exit(bool({'numpy', 'PIL', 'pandas', 'pyarrow', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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
        (FiltersConfig(consent=ConsentConfig(reserved="drop")), ("consent",)),
        (FiltersConfig(consent=ConsentConfig(reserved="keep")), ()),
        (
            FiltersConfig(consent=ConsentConfig(ai_generated="drop", c2pa=True)),
            ("consent", "credentials"),
        ),
    ],
)
def test_what_the_filters_need_is_measured(filters, names):
    assert needed(filters, []) == names
    assert set(needed(filters, ["nsfw"])) == {*names, "nsfw"}

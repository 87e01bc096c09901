"""``annotate.embeddings``: what needs embeddings that are not kept is refused with what to type."""

from dataclasses import replace

import pytest

from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.pipeline import notes, request
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run.config import RunConfig
from curate.run.schema import UserError


@pytest.fixture
def config(tmp_path, tiny_clip, pictures):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path), name="a"),
        dataset=FolderConfig(name="x", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu"),
        annotate=AnnotateConfig(embeddings="none"),
        split=SplitConfig(siblings=False),
    )


def test_what_needs_embeddings_is_refused(config):
    request.check(config)
    for change, key in (
        ({"split": SplitConfig()}, "type split.siblings=false"),
        (
            {"filters": FiltersConfig(duplicates=DuplicatesConfig(cosine=0.96))},
            "type filters.duplicates.cosine=null",
        ),
        ({"heads": {"a": {"path": "x"}}}, "leave out heads"),
    ):
        with pytest.raises(UserError, match=f"{key}, or type annotate.embeddings=image"):
            request.check(replace(config, **change))
        request.check(replace(config, split=SplitConfig(), annotate=AnnotateConfig()))


def test_an_unknown_kind_and_the_note(config):
    with pytest.raises(UserError, match=r"annotate.embeddings=all.*both\|image\|none"):
        AnnotateConfig(embeddings="all")
    assert "annotate.embeddings=image" in notes.not_measured(config)[0]
    assert notes.not_measured(replace(config, annotate=AnnotateConfig())) == []

"""How a data set is cut into parts, and in which order it comes, decides nothing."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from curate.annotate.config import AnnotateConfig
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stage import Measure, annotate
from curate.clip.config import ClipConfig, HeadConfig
from curate.clip.load import load_clip
from curate.decide import shuffled_captions
from curate.decide.config import SplitConfig
from curate.filters.captions import CaptionsConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.readers.candidate import Candidate
from curate.readers.files import loader, version_of
from curate.readers.source import Source
from tests.curate.decide.judging import judged
from tests.curate.small_ledgers import all_rows

CALIBRATED = ClipSimilarityConfig(false_keep_rate=0.4)
FILTERS = {
    "calibrated": FiltersConfig(
        clip_similarity=CALIBRATED,
        duplicates=DuplicatesConfig(hamming_distance=6, cosine=0.999),
        columns={"head_odd": ColumnConfig(minimum=-9.0)},
    ),
    "fraction": FiltersConfig(
        clip_similarity=ClipSimilarityConfig(fraction=0.5), captions=CaptionsConfig(keep="best")
    ),
}
VERDICT = ["key", "caption_index", "clip_similarity", "head_odd", "kept", "rule", "reason"]
VERDICT += ["split", "duplicate_group", "duplicate_of", "number", "mixed"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """70 pictures of which some are copies or near copies, unreadable or missing."""
    root = tmp_path_factory.mktemp("images")
    draw = random.Random(0)
    words = ["red", "green", "small", "large", "cat", "dog", "bird", "tree", "house", "sun"]
    found = []
    for number in range(70):
        pixels = [tuple(draw.randrange(256) for _ in range(3)) for _ in range(16)]
        if number % 9 == 1:  # equal but for one, of which a copy differs a little
            pixels = [(200, 10 * n, 60) for n in range(16)]
            pixels[0] = (200, number // 9 % 2, 60)
        image = Image.new("RGB", (4, 4))
        image.putdata(pixels)
        path = root / f"{draw.randrange(10**6):06d}-{number}.png"
        image.resize((40, 32), Image.Resampling.NEAREST).save(path)
        if number % 16 == 5:
            path.write_bytes(b"no image")
        if number % 16 == 7:
            path.unlink()
        captions = tuple(" ".join(draw.choices(words, k=4)) for _ in range(draw.randint(0, 4)))
        columns = {
            "number": number if number % 5 else None,
            "mixed": number if number < 60 else "x",
        }
        found.append(Candidate(path.stem, captions, "s", path.name, version_of(path), columns))
    return root, found


@pytest.fixture(scope="module")
def verdicts(tiny_clip, tmp_path_factory):
    clip = ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8)
    scorer = load_clip(clip)
    torch.manual_seed(0)
    head = tmp_path_factory.mktemp("head") / "odd.safetensors"
    save_file({"weight": torch.randn(1, 16), "bias": torch.zeros(1)}, head)

    def of(root, candidates, filters, images_per_part):
        config = AnnotateConfig(images_per_part=images_per_part)
        spec = AnnotationSpec.of(clip, filters, config)
        source = Source.of(candidates, loader(root))
        parts = tmp_path_factory.mktemp("parts")
        measure = Measure(parts / "annotations", config, spec, lambda: scorer)
        found = annotate(source, measure)
        sides = SplitConfig(val=0.2, test=0.2, minimum=3)
        heads = {"odd": HeadConfig(path=str(head), kind="linear")}
        result = judged(found.parts, filters, sides, spec=spec, heads=heads)
        by_key = all_rows(result.ledger).sort_values(["key", "caption_index"], ignore_index=True)
        return by_key[VERDICT], result

    return of


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("calibrated", 50),
        pytest.param("calibrated", 10_000, marks=pytest.mark.slow),
        pytest.param("fraction", 10_000, marks=pytest.mark.slow),
    ],
)
def test_verdicts_do_not_depend_on_parts_or_order(images, verdicts, monkeypatch, name, most):
    monkeypatch.setattr(shuffled_captions, "MAX_PAIRS", most)
    root, candidates = images
    expected, first = verdicts(root, candidates, FILTERS[name], 512)
    assert 10 < expected["kept"].sum() < len(expected) - 10
    shuffled = random.Random(1).sample(candidates, len(candidates))
    for order, size in ((candidates, 1), (candidates, 7), (shuffled, 512), (shuffled[::-1], 7)):
        found, result = verdicts(root, order, FILTERS[name], size)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert (result.cut, result.steps) == (first.cut, first.steps)
        np.testing.assert_array_equal(result.null.similarities, first.null.similarities)

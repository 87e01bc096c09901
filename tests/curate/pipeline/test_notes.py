"""The notes on a curation appear where they should, and only there."""

import numpy as np
import pandas as pd
import pytest

from curate.clip.config import ClipConfig
from curate.decide.shuffled_captions import Null
from curate.decide.stage import Verdicts
from curate.pipeline import notes
from curate.pipeline.config import CurateConfig
from curate.readers.config import DatasetConfig

SCORER = ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai")


def verdicts(own: float, held_out: int, count: int = 80) -> Verdicts:
    """Pairs of similarity ``own``; shuffled captions are spread evenly over 0 ... 1."""
    ledger = pd.DataFrame(
        {
            "key": [f"{row:03d}" for row in range(count)],
            "clip_similarity": np.float32(own),
            "kept": True,
            "split": ["val" if row < held_out else "train" for row in range(count)],
        }
    )
    return Verdicts(ledger, [], None, "no cut", Null(np.linspace(0, 1, 101, dtype=np.float32)))


@pytest.mark.parametrize(
    ("own", "held_out", "count", "says"),
    [
        (0.9, 32, 80, []),
        (0.55, 32, 80, ["55%"]),
        (0.9, 31, 80, ["judging: 31 images"]),
        (0.1, 0, 80, ["10%", "judging: 0 images"]),
        (0.1, 0, 20, ["judging: 0 images"]),  # too few to call a CLIP blind
    ],
)
def test_a_blind_clip_and_few_held_out_images_are_noted(own, held_out, count, says):
    found = notes.of(
        CurateConfig(dataset=DatasetConfig(), clip=SCORER), verdicts(own, held_out, count)
    )
    assert len(found) == len(says)
    assert all(text in note for text, note in zip(says, found, strict=True))


def test_a_clip_in_use_is_not_suggested():
    poor = verdicts(own=0.5, held_out=32)
    assert "vit_b32_openai" not in notes.blind_clip(poor, SCORER)[0]
    assert "vit_b32_openai" in notes.blind_clip(poor, ClipConfig(name="ViT-L-14"))[0]


def test_the_suggested_split_is_large_enough_and_allowed():
    (note,) = notes.few_held_out(8, 160)
    share = float(note.rpartition("split.val=")[2])
    assert 32 / 160 < share < 0.5
    assert "split.val" not in notes.few_held_out(6, 64)[0]

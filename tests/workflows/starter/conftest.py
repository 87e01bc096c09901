"""Random pictures with names, and the tokenizer."""

import numpy as np
import pytest

from workflows.starter.emoji_sets import Pictures, is_held_out
from workflows.starter.tokenizer import load_tokenizer

NAMES = [
    name for name in ("red ox", "sun", "ship", "old key", "kite", "yak") if not is_held_out(name)
]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return load_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def noise_with_names() -> Pictures:
    """One picture of 64 px for each of ``NAMES``."""
    return Pictures(
        np.random.default_rng(0).integers(0, 256, (len(NAMES), 64, 64, 3), dtype=np.uint8),
        *(np.array(NAMES),) * 2,
        np.array(["noto"] * len(NAMES)),
        np.array([""] * len(NAMES)),
    )

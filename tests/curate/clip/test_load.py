"""A CLIP in another process is the one that its scores are kept under."""

import pickle

import pytest

from curate.clip.config import ClipConfig
from curate.clip.load import LazyClip
from curate.clip.models import arithmetic, fingerprint, precision
from curate.run.schema import UserError


@pytest.mark.parametrize("draft", [False, True])
def test_the_same_one_is_loaded(tiny_clip, draft):
    config = ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu")
    sent = pickle.loads(pickle.dumps(LazyClip(config, fingerprint(config, draft), draft)))
    assert sent().device.type == "cpu"


def test_another_one_is_refused(tiny_clip):
    config = ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu")
    there = ClipConfig(name=f"local-dir:{tiny_clip}", device="cuda", precision="auto")
    assert precision(there) == "bf16"  # on a machine that may have no such device
    sent = pickle.loads(pickle.dumps(LazyClip(config, fingerprint(there))))
    with pytest.raises(UserError, match=r"is another model on .* Install the same on all machines"):
        sent()


def test_a_named_device_is_not_looked_for():
    assert arithmetic(ClipConfig(name="x", device="cuda:7")).startswith("cuda-")

"""A model's folders are held until it is gone, and no longer."""

import gc

import pytest

from curate.run.locks import locked
from curate.run.schema import Busy
from finetune.cache.hold import hold


class Model:
    """As pipelines are, compared by value and therefore without a hash."""

    def __eq__(self, other):
        return True

    __hash__ = None


def is_held(folder):
    try:
        with locked(folder):
            return False
    except Busy:
        return True


def test_a_folder_is_held_until_the_last_model_is_gone(tmp_path):
    one, two = Model(), Model()
    for model in (one, one, two):
        hold(model, tmp_path / "a")
    hold(two, tmp_path / "b")
    assert is_held(tmp_path / "a")
    del one, model
    gc.collect()
    assert is_held(tmp_path / "a")
    del two
    gc.collect()
    assert not is_held(tmp_path / "a")
    assert not is_held(tmp_path / "b")


def test_what_is_being_pruned_is_not_used(tmp_path):
    model = Model()
    with locked(tmp_path), pytest.raises(Busy):
        hold(model, tmp_path)
    hold(model, tmp_path)
    assert is_held(tmp_path)

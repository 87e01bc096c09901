"""The check of captions before training: what it says, when it refuses, and that it is made once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curate.run import checksums
from curate.run.schema import UserError
from finetune import caption_check
from finetune.caption_check import FILE, CaptionCheck, judge
from finetune.heldout import HeldoutItems
from finetune.intervals import Estimate
from tests.finetune.test_damage import flip

RUN = Path("runs/mine/curate")
REFUSED = ("refuse", RUN)


def check(value: float, low: float, high: float, groups: int = 60, effect: float = 0.4):
    gain = Estimate(value * effect, low * effect, high * effect, 2 * groups, groups)
    ratio = Estimate(value, low, high, 2 * groups, groups)
    return CaptionCheck(gain, ratio, effect, 3, ("k-1", "k-2"))


def test_right_captions_are_said_to_be_seen():
    said = judge(check(0.5, 0.4, 0.6), *REFUSED)
    assert said.startswith("captions ")
    assert "+20.0 % [+16.0, +24.0] on 120 training pictures (60 groups)" in said
    assert "fit 0.50 [0.40, 0.60]" in said


def test_shuffled_captions_are_refused_with_both_causes_and_what_to_type():
    with pytest.raises(UserError, match="sees no difference") as refused:
        judge(check(0.0, -0.12, 0.12), *REFUSED)
    for part in (
        "most captions do not belong to their pictures, or this base does not know",
        "python -m curate.explain mine k-1 k-2",
        "filters.clip_similarity.false_keep_rate=0.01",
        "type doctor.captions=warn",
    ):
        assert part in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_warning_is_enough_where_it_was_asked_for():
    said = judge(check(0.0, -0.12, 0.12), "warn", RUN)
    assert said.startswith("warning: the base sees no difference")
    assert "doctor.captions" not in said


@pytest.mark.parametrize(
    ("found", "finding", "start"),
    [
        (check(0.0, -0.12, 0.12, groups=31), "unclear", "warning: whether the base sees"),
        (check(0.1, -0.1, 0.3), "unclear", "warning: whether the base sees"),
        (check(0.1, 0.05, 0.15), "weak", "warning: the captions hardly fit"),
        (check(np.nan, np.nan, np.nan), "unclear", "warning: whether the base sees"),
        (check(0.9, -np.inf, np.inf, groups=1), "unclear", "warning: whether the base sees"),
        (check(0.25, 0.08, 0.4), "seen", "captions "),  # half of them may be wrong
    ],
)
def test_where_the_interval_does_not_say_so_nothing_is_refused(found, finding, start):
    assert found.finding == finding
    assert judge(found, *REFUSED).startswith(start)


def test_a_base_that_ignores_captions_is_refused_whatever_its_fit():
    with pytest.raises(UserError, match="its predictions hardly depend on captions at all"):
        judge(check(1.0, 0.5, 1.5, effect=0.0005), *REFUSED)
    assert judge(check(1.0, 0.5, 1.5, groups=9, effect=0.0005), *REFUSED).startswith("warning")


def test_nothing_to_compare_is_said():
    assert "all of them read alike" in judge(None, *REFUSED)


def test_what_is_stored_is_read_again_and_damage_is_not_believed(tmp_path):
    found = check(0.5, 0.4, 0.6)
    found.save(tmp_path / FILE)
    assert CaptionCheck.load(tmp_path / FILE) == found
    flip(tmp_path / FILE, 40)
    assert CaptionCheck.load(tmp_path / FILE) is None
    assert CaptionCheck.load(tmp_path / "absent.json") is None


def test_a_base_to_which_all_captions_are_one_is_stored_and_refused(tmp_path):
    found = check(np.nan, np.nan, np.nan, effect=0.0)
    found.save(tmp_path / FILE)
    stored = CaptionCheck.load(tmp_path / FILE)
    assert stored is not None
    assert np.isnan(stored.fit.low)
    assert (stored.finding, stored.effect) == ("unseen", 0.0)


# In a training


def test_it_is_made_once_printed_and_stored(make_config, run_training, capsys, monkeypatch):
    run_training(config := make_config(**{"doctor.captions": "warn"}))
    out = capsys.readouterr().out
    assert out.count("on 12 training pictures") == 1
    stored = CaptionCheck.load(config.folder / FILE)
    assert stored is not None
    assert stored.fit.groups == 12
    assert checksums.damaged(config.folder) == []

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(caption_check, "measure", never)
    run_training(make_config(**{"doctor.captions": "refuse", "train.samples": 48}))
    assert "on 12 training pictures" not in capsys.readouterr().out


def test_a_refusal_comes_before_anything_is_trained(make_config, run_training, monkeypatch):
    monkeypatch.setattr(caption_check, "measure", lambda *_: check(0.0, -0.12, 0.12))
    config = make_config(**{"doctor.captions": "refuse"})
    with pytest.raises(UserError, match="sees no difference"):
        run_training(config)
    assert not (config.folder / "config.yaml").exists()
    assert not (config.folder / "checkpoints").exists()
    run_training(make_config(**{"doctor.captions": "warn"}))
    assert (config.folder / "checkpoints").exists()


def test_off_measures_nothing(make_config, run_training):
    run_training(config := make_config(**{"doctor.captions": "off"}))
    assert not (config.folder / FILE).exists()


def test_off_leaves_no_result_of_an_earlier_start(make_config, run_training):
    config = make_config(**{"doctor.captions": "off"})
    config.folder.mkdir(parents=True)
    check(0.5, 0.4, 0.6).save(
        config.folder / FILE
    )  # of a start that ended before its first checkpoint
    run_training(config)
    assert not (config.folder / FILE).exists()
    assert checksums.damaged(config.folder) == []


def test_a_damaged_file_is_made_again_and_never_refused(make_config, run_training, capsys):
    run_training(config := make_config(**{"doctor.captions": "warn"}))
    before = (config.folder / FILE).read_bytes()
    flip(config.folder / FILE)
    capsys.readouterr()
    run_training(config)
    assert f"{FILE} is damaged" in capsys.readouterr().out
    assert (config.folder / FILE).read_bytes() == before
    assert checksums.damaged(config.folder) == []


# With the built-in base


@pytest.mark.slow
def test_the_built_in_base_sees_right_captions_and_not_shuffled_ones():
    """Emoji of another style than the base's, each with its name, and with the name of another."""
    items, captions, model = _emoji(128)
    measure = partial(caption_check.measure, model, model.unet, batch_size=64)
    assert measure(items, captions).finding == "seen"
    order = np.random.default_rng(0).permutation(128)
    source = np.empty(128, int)
    source[order] = np.roll(order, 1)
    wrong = replace(items, conditioning=items.conditioning.take(source.tolist()))
    found = measure(wrong, [captions[i] for i in source])
    assert found.finding == "unseen"
    with pytest.raises(UserError):
        judge(found, *REFUSED)


def _emoji(count: int):
    """So many of OpenMoji's pictures, encoded, with their names; none twice in another skin tone."""
    from curate.readers.openmoji import OpenmojiConfig, read
    from finetune.data import keyed_seed
    from finetune.models import load_model
    from finetune.models.config import ModelConfig

    source = read(OpenmojiConfig(name="openmoji"))
    plain = [each for each in source.candidates() if "skin tone" not in each.captions[0]]
    chosen = sorted(plain, key=lambda each: keyed_seed(each.key))[:count]
    model = load_model(ModelConfig(path="finetune/starter_ldm", resolution=64))
    pictures = [Image.open(BytesIO(source.load(each.location))).convert("RGB") for each in chosen]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    keys, captions = [each.key for each in chosen], [each.captions[0] for each in chosen]
    latents = torch.cat([model.encode_images(part) for part in pixels.split(32)])
    return HeldoutItems(keys, latents, model.encode_captions(captions), keys), captions, model

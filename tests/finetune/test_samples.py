"""Pictures while training: of which weights they are, and that they leave the training as it is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curate.verify import stage_problems
from finetune import metrics
from finetune.checkpoint import list_checkpoints
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler, texts_of
from finetune.ema import copy_into
from finetune.methods import prepare
from finetune.opened_run import load_run
from finetune.samples import Samples
from tests.curate.run.test_tracking import event_files
from tests.finetune.conftest import digests

FEW = {"samples.captions": 2, "samples.prompts": ["a blue square"], "samples.steps": 3}


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


def drawn(config) -> dict[str, np.ndarray]:
    """All pictures of a training by their path in its folder."""
    folder = config.folder / "samples"
    files = sorted(folder.rglob("*.png"))
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in files}


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def test_each_evaluation_has_pictures_of_the_weights_it_would_export(make_config, run_training):
    config = make_config(method="lora", **FEW)
    run_training(config)
    assert list(stage_problems(config.folder)) == []
    found = drawn(config)
    steps = ("step-00000000", "step-00000004", "step-00000008")
    names = ("held-out-1.png", "held-out-2.png", "prompt-1.png")
    assert found.keys() == {"all.png", *(f"{step}/{name}" for step in steps for name in names)}

    run = load_run(config.run.folder)
    model = run.model()
    sampler = Sampler(model, SamplerConfig("dpm_solver++", 3), 0, 4)
    with np.load(config.folder / "heldout.npz") as curve:
        keys = curve["val_keys"].tolist()
    known = dict(zip(keys, run.captions("val", 4), strict=True))
    texts = {f"held-out-{n}": known[key] for n, key in enumerate(keys[:2], 1)}
    texts["prompt-1"] = "a blue square"
    prompts = [Prompt(key, text) for key, text in texts.items()]
    base = sampler.draw(model.unet, prompts)
    prepare(model.unet, config.method, config.train.seed)
    for step, stored in zip(steps[1:], list_checkpoints(config.folder), strict=True):
        copy_into(config.method.trainable(model.unet), stored.weights())
        for prompt, picture in zip(prompts, sampler.draw(model.unet, prompts), strict=True):
            np.testing.assert_array_equal(found[f"{step}/{prompt.key}.png"], np.asarray(picture))
    for prompt, picture in zip(prompts, base, strict=True):
        np.testing.assert_array_equal(found[f"{steps[0]}/{prompt.key}.png"], np.asarray(picture))
    assert not np.array_equal(found[f"{steps[0]}/prompt-1.png"], found[f"{steps[2]}/prompt-1.png"])


def test_drawing_leaves_the_training_as_it_is(make_config, run_training):
    plain, watched = make_config("plain"), make_config("watched", **FEW)
    for config in (plain, watched):
        run_training(config)
    kept = {name: sha for name, sha in digests(watched).items() if not name.startswith("samples/")}
    assert kept == digests(plain)
    assert kept != digests(watched)


def test_a_killed_training_draws_what_it_does_again(make_config, run_training, monkeypatch):
    """Killed after the evaluation of update 6, which no checkpoint knows; the same pictures as of one not killed."""
    changes = {"heldout.every": 8, "train.samples": 40, **FEW}
    whole, cut = make_config("whole", **changes), make_config("cut", **changes)
    run_training(whole)
    real = metrics.append

    def killed(path, record):
        real(path, record)
        if record["step"] == 7:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "append", killed)
        with pytest.raises(Killed):
            run_training(cut)
    assert "step-00000006/prompt-1.png" in drawn(cut)
    calls = []
    real_draw = Samples.draw

    def counted(self, step, *rest):
        calls.append((step, (self.folder / f"step-{step:08d}").exists()))
        real_draw(self, step, *rest)

    monkeypatch.setattr(Samples, "draw", counted)
    run_training(cut)
    assert calls[0] == (6, False)  # cut back to the checkpoint of update 4
    assert same(drawn(cut), drawn(whole))


def test_other_prompts_begin_another_sheet(make_config, run_training):
    """Pictures of the first prompts are not shown under the second's words."""
    config = make_config(**{"samples.prompts": ["a blue square"], "samples.steps": 2})
    run_training(config)
    config.samples.prompts, config.train.samples = ["a red dot"], 64
    run_training(config)
    with Image.open(config.folder / "samples" / "all.png") as sheet:
        wide = sheet.width
    config = make_config("same", **{"samples.prompts": ["a red dot"], "samples.steps": 2})
    config.train.samples = 64
    run_training(config)
    with Image.open(config.folder / "samples" / "all.png") as sheet:
        assert sheet.width > wide  # all five evaluations, not the last two
    assert list(stage_problems(config.folder)) == []


def test_without_held_out_pictures_prompts_are_drawn(make_config, run_training):
    config = make_config(val=0, **{"heldout.items": 0, **FEW})
    run_training(config)
    assert {path.split("/")[-1] for path in drawn(config)} == {"all.png", "prompt-1.png"}


def test_nothing_to_draw_leaves_no_folder(make_config, run_training):
    config = make_config()
    run_training(config)
    assert not (config.folder / "samples").exists()


def test_tensorboard_has_the_pictures(make_config, run_training):
    pytest.importorskip("tensorboard", reason='needs pip install "darkroom[tracking]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(tracker="tensorboard", **FEW)
    run_training(config)
    place = config.folder / "tracking" / "tensorboard"
    found = EventAccumulator(str(place), {"images": 0})
    found.Reload()
    tags = [tag for tag in found.Tags()["images"] if tag.startswith("finetune/samples/prompt-1")]
    assert tags
    assert [event.step for event in found.Images(tags[0])] == [0, 4, 8]
    before = event_files(config.folder)
    run_training(config)
    assert event_files(config.folder) == before


def test_a_picture_says_nothing_but_what_made_it(make_config, run_training):
    config = make_config(**FEW)
    run_training(config)
    texts = texts_of(config.folder / "samples" / "step-00000004" / "prompt-1.png")
    assert texts.keys() == {"darkroom-fingerprint", "darkroom-pixels-sha256"}

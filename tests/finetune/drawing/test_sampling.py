"""A picture depends on its caption, seed, sampler and weights, and on nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from curate.run.schema import UserError
from evaluate.evaluators.flat_pictures import is_flat
from finetune.config import ModelConfig
from finetune.drawing.config import SAMPLERS, SamplerConfig
from finetune.drawing.sampling import SCHEDULERS, Frame, Prompt, Sampler, texts_of, write
from finetune.models import load_model
from finetune.prediction_types import PREDICTION_TYPES

PROMPTS = [Prompt(f"k{i}", caption) for i, caption in enumerate(("a dot", "a bar", "red", ""))]


@pytest.fixture(scope="module")
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


def sampler(
    model, name: str = "dpm_solver++", batch_size: int = 4, frame: Frame | None = None, **options
) -> Sampler:
    settings = {"steps": 3, "guidance_scale": 3.0, **options}
    return Sampler(model, SamplerConfig(name, **settings), 0, batch_size, frame)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_picture_does_not_depend_on_its_batch(model, name: str):
    draw = sampler(model, name).draw
    together = draw(model.unet, PROMPTS)
    alone = [draw(model.unet, [prompt])[0] for prompt in PROMPTS]
    for one, other in zip(together, alone, strict=True):
        difference = np.abs(np.asarray(one, int) - np.asarray(other, int))
        assert difference.max() <= 1  # rounding of batched convolutions
    assert np.asarray(together[0]).tobytes() != np.asarray(together[1]).tobytes()


def test_every_name_has_a_scheduler():
    assert set(SCHEDULERS) == set(SAMPLERS)


FRAMES = [
    Frame(),
    Frame(24, 16),
    Frame(16, 16, start=Image.new("RGB", (16, 16), "#4080c0"), strength=0.7),
]


@pytest.mark.quick_cases(9)
@pytest.mark.parametrize("frame", FRAMES, ids=["noise", "oblong", "picture"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_seed_draws_what_diffusers_draws(model, pipeline_dir, name: str, frame: Frame):
    """The whole pipeline as a user of diffusers would call it, one picture at a time."""
    ours = sampler(model, name, batch_size=3, frame=frame, steps=4)
    prompts = [Prompt("", text, seed, "red") for seed, text in enumerate(("a dot", "a bar", "b"))]
    drawn = ours.draw(model.unet, prompts)
    kind = StableDiffusionImg2ImgPipeline if frame.start else StableDiffusionPipeline
    theirs = kind.from_pretrained(pipeline_dir, safety_checker=None, requires_safety_checker=False)
    theirs.scheduler = sampler(model, name).scheduler
    theirs.set_progress_bar_config(disable=True)
    placed = {"height": frame.height or 16, "width": frame.width or 16}
    if frame.start:
        placed = {"image": frame.start, "strength": frame.strength}
    for prompt, picture in zip(prompts, drawn, strict=True):
        [expected] = theirs(
            prompt.caption, negative_prompt="red", num_inference_steps=4, guidance_scale=3.0,
            generator=torch.Generator().manual_seed(prompt.seed), **placed,
        ).images  # fmt: skip
        assert picture.size == expected.size == (frame.width or 16, frame.height or 16)
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_fingerprints_of_earlier_pictures_stay(model):
    """Stored pictures of older runs are valid: what was added counts only where it is used."""
    known = sampler(model)
    parts = [model.fingerprint(), "w", asdict(known.config), 0, "k0", "a dot"]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    assert known.fingerprint(PROMPTS[0], "w") == digest


def test_a_fingerprint_changes_with_all_that_the_picture_depends_on(model):
    start = FRAMES[2].start
    frames = [
        None, Frame(24, 16), Frame(16, 24), Frame(16, 16, clip_skip=2), FRAMES[2],
        Frame(16, 16, start=start, strength=0.6),
        Frame(16, 16, start=Image.new("RGB", (16, 16)), strength=0.7),
    ]  # fmt: skip
    prompts = [
        Prompt("k", "a"), Prompt("k", "b"), Prompt("k", "a", 0), Prompt("k", "a", 1),
        Prompt("k", "a", 0, "x"), Prompt("k", "a", negative="x"),
    ]  # fmt: skip
    marks = [sampler(model, frame=f).fingerprint(p, "w") for f in frames for p in prompts]
    assert len(set(marks)) == len(marks)
    seeded = [sampler(model).fingerprint(Prompt(key, "a", 3), "w") for key in "ab"]
    assert seeded[0] == seeded[1]  # the seed alone says what the noise is


def test_other_texts_are_stored_as_they_are(tmp_path):
    texts = {"parameters": '狐, a "fox"\nSteps: 3', "other": "é"}
    write(Image.new("RGB", (8, 8)), tmp_path / "a.png", "mark", texts)
    found = texts_of(tmp_path / "a.png")
    assert {name: found[name] for name in texts} == texts


def test_noise_is_keyed_and_leaves_the_global_state_alone(model):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    draws = [
        torch.randn(4, generator=sampler(model).generator(Prompt(key, ""))).tolist()
        for key in ("a", "a", "b")
    ]
    for name in SCHEDULERS:
        sampler(model, name).draw(model.unet, PROMPTS[:2])
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_schedule_is_the_models_own(model):
    for name in SCHEDULERS:
        scheduler = sampler(model, name).scheduler
        assert scheduler.config.prediction_type == "v_prediction"
        assert torch.allclose(
            scheduler.alphas_cumprod.sqrt().float(), model.schedule.alphas, atol=1e-6
        )


@pytest.mark.parametrize(
    ("prediction_type", "zero_terminal_snr"),
    [*((name, False) for name in PREDICTION_TYPES), ("v_prediction", True), ("sample", True)],
)
def test_a_perfect_denoiser_is_sampled_to_its_picture(
    model, pipeline_dir, prediction_type, zero_terminal_snr
):
    """Each solver, given a network that knows x_0, ends at the picture that x_0 decodes to."""
    if zero_terminal_snr:
        model = load_model(
            ModelConfig(path=str(pipeline_dir), resolution=16), zero_terminal_snr=True
        )
        with pytest.raises(UserError, match=r"type sampler\.timestep_spacing=trailing"):
            sampler(model, timestep_spacing="leading")
    target = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        decoded = model.vae.decode(target / model.vae.config["scaling_factor"]).sample
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
    model = replace(model, schedule=replace(model.schedule, prediction_type=prediction_type))

    class Perfect(torch.nn.Module):
        """Says x_0, or eps or v from x_t = alpha x_0 + sigma eps."""

        config, dtype, device = model.unet.config, torch.float32, torch.device("cpu")

        def forward(self, x, t, **_):
            t = torch.as_tensor(t).long()
            alpha, sigma = model.schedule.alphas[t], model.schedule.sigmas[t]
            noise = (x - alpha * target) / sigma
            v = (alpha * x - target) / sigma
            clean = target.expand_as(x)
            return ({"epsilon": noise, "v_prediction": v, "sample": clean}[prediction_type],)

    for name in SCHEDULERS:
        if (name, prediction_type) == ("euler_ancestral", "sample"):
            with pytest.raises(UserError, match="type sampler=euler"):
                sampler(model, name)
            continue
        pipeline = sampler(model, name, steps=30)
        pipeline.model = replace(model)
        pipeline.model.pipeline = lambda unet: _with(model, unet)  # type: ignore[method-assign]
        picture = pipeline.draw(Perfect(), PROMPTS[:1])[0]
        assert np.abs(np.asarray(picture) - expected).max() < 8, name


def _with(model, unet):
    pipeline = model.pipeline()
    pipeline.register_modules(unet=model.unet)
    pipeline.unet = unet
    return pipeline


def test_pictures_are_stored_and_only_drawn_again_when_something_changed(model, tmp_path):
    built = []

    def unet():
        built.append(1)
        return model.unet

    first = sampler(model, batch_size=3)
    paths = first.draw_missing(tmp_path, PROMPTS, "weights", unet)
    assert [path.name for path in paths] == ["k0.png", "k1.png", "k2.png", "k3.png"]
    content = [path.read_bytes() for path in paths]
    first.draw_missing(tmp_path, PROMPTS, "weights", unet)
    assert len(built) == 1
    paths[2].unlink()
    first.draw_missing(tmp_path, PROMPTS, "weights", unet)
    assert len(built) == 2
    assert [path.read_bytes() for path in paths] == content
    for changed in (sampler(model, steps=4), sampler(model, guidance_scale=1.0)):
        changed.draw_missing(tmp_path, PROMPTS, "weights", unet)
    first.draw_missing(tmp_path, PROMPTS, "other weights", unet)
    assert len(built) == 5


def test_a_damaged_picture_is_drawn_again(model, tmp_path, capsys):
    first = sampler(model)
    paths = first.draw_missing(tmp_path, PROMPTS, "weights", lambda: model.unet)
    whole = paths[1].read_bytes()
    for place in (20, whole.index(b"IDAT") + 20, whole.index(b"tEXt") + 30):
        data = bytearray(whole)
        data[place] ^= 1
        paths[1].write_bytes(data)
        first.draw_missing(tmp_path, PROMPTS, "weights", lambda: model.unet)
        assert f"{paths[1]} is damaged; drawn again" in capsys.readouterr().out
        assert paths[1].read_bytes() == whole


def test_a_model_that_broke_down_gives_black_pictures(model, pipeline_dir):
    broken = sampler(model)
    nan = torch.nn.Parameter(torch.tensor(float("nan")))
    unet = load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet
    with torch.no_grad():
        unet.conv_out.bias.fill_(nan)
    picture = broken.draw(unet, PROMPTS[:1])[0]
    assert isinstance(picture, Image.Image)
    assert is_flat(picture)

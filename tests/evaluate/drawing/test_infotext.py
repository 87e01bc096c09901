"""What is written into a picture is read again, by our reader and by the interfaces' own patterns."""

import re

import pytest

from evaluate.drawing import infotext
from evaluate.drawing.infotext import Infotext, values_of
from finetune.drawing.config import SAMPLERS, SPACINGS

# AUTOMATIC1111's documentation of the form.
THEIRS = """girl with an artist's beret, by Alphonse Mucha, ((eyeshadow)), [a:b:0.5]
Negative prompt: ugly, (((deformed))), [blurry]
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"""

SETTINGS = {
    "sampler": "euler_ancestral", "spacing": "trailing", "steps": 20, "guidance": 5.0, "seed": 7,
    "width": 512, "height": 768, "model": "a, b: c", "model_hash": "0123456789", "clip_skip": 2,
    "strength": 0.6, "more": {"Lora hashes": 'na"me: abc, d: e', "LoRA scale": "0.5"},
}  # fmt: skip


def test_it_is_the_interfaces_form():
    said = infotext.write(Infotext("a fox", "blur", values_of(**SETTINGS)))
    first, second, third = said.split("\n")
    assert (first, second) == ("a fox", "Negative prompt: blur")
    assert third.startswith(
        "Steps: 20, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 5, Seed: 7, Size: 512x768, "
        'Model hash: 0123456789, Model: "a, b: c", Denoising strength: 0.6, Clip skip: 2, RNG: CPU, '
    )


@pytest.mark.parametrize(
    "prompt", ["a fox", "", 'a "b": c, d', "Steps: 3, Seed: 4", "狐 <lora:x:1>"]
)
@pytest.mark.parametrize("negative", ["", "blur, Seed: 3, Size: 1x1, Steps: 2"])
def test_round_trip(prompt, negative):
    info = Infotext(prompt, negative, values_of(**SETTINGS))
    assert infotext.read(infotext.write(info)) == info


def test_their_text_is_read():
    found = infotext.read(THEIRS)
    assert found.prompt.startswith("girl with")
    assert found.negative == "ugly, (((deformed))), [blurry]"
    assert found.values["Sampler"] == "Euler a"
    assert found.values["Model hash"] == "45dee52b"
    without = infotext.read("a fox\nat night\nSteps: 2, Sampler: DDIM, CFG scale: 1, Seed: 0")
    assert (without.prompt, without.negative) == ("a fox\nat night", "")
    assert infotext.read("a fox").values == {}


def test_comfyui_finds_all_three_parts():
    """Its importer looks for the last of these two marks and reads nothing without either."""
    said = infotext.write(Infotext("a fox", "", values_of(**SETTINGS)))
    steps = said.rindex("\nSteps:")
    negative = said.rindex("\nNegative prompt:", 0, steps)
    assert said[:negative] == "a fox"
    assert said[negative + len("\nNegative prompt: ") : steps] == ""
    pairs = re.findall(
        r'\s*([^:]+:\s*([^"{].*?|".*?"|\{.*?\}))\s*(,|$)', said[steps:].split("\n")[1]
    )
    assert "Seed: 7" in [pair[0] for pair in pairs]


def test_defaults_are_left_out():
    plain = values_of(
        **SETTINGS | {"clip_skip": 1, "strength": None, "spacing": "leading", "more": {}}
    )
    assert not {"Clip skip", "Denoising strength", "Schedule type"} & set(plain)


def test_every_sampler_and_spacing_has_a_name():
    assert set(infotext.SAMPLER_NAMES) == set(SAMPLERS)
    assert set(infotext.SCHEDULE_TYPES) < set(SPACINGS)

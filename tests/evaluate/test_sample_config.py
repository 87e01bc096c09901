"""What may be typed for ``evaluate.sample``, and which checkpoints and scales it means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir

from curate.run.overrides import CONF, prepare
from curate.run.schema import UserError, to_dataclass
from evaluate.drawing.sample_choice import Choice, choices
from evaluate.sample_config import SampleConfig


def config(*arguments: str) -> SampleConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_dataclass(compose("sample", overrides=prepare(arguments)), SampleConfig)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("seeds=3", [0, 1, 2]),
        ("seeds=[5]", [5]),
        ("seeds=[2,0,2]", [2, 0]),
        ("seeds=4,7", [4, 7]),
        ("seeds=[9223372036854775807]", [2**63 - 1]),
    ],
)
def test_seeds(typed, expected):
    assert config(typed).seeds == expected


def test_lists_and_texts_as_they_are_typed():
    found = config("prompt=a fox, big (red:1.2), 50% = half", "negative_prompt=blur, text: x")
    assert found.prompt == ["a fox, big (red:1.2), 50% = half"]
    assert found.negative_prompt == "blur, text: x"
    assert config("prompt=[a fox,two boats]").prompt == ["a fox", "two boats"]
    assert config('prompt=["a, b","c (d:1.2)"]').prompt == ["a, b", "c (d:1.2)"]
    assert config("checkpoints=[base,150,step-00000300,0]").checkpoints == [
        "base",
        150,
        300,
        "base",
    ]
    assert config("checkpoints=all").checkpoints == ["all"]
    assert config("lora_scale=[0,0.5,1,1]").lora_scale == [0, 0.5, 1]
    assert config("lora_scale=2").lora_scale == [2]
    assert config("image=a (1), b.png").strength == 0.6
    assert config("model=starter").model.resolution == 64


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["width=100"], "width=100 is no multiple of 8 above 0; type width=96"),
        (["height=0"], "type height=8"),
        (["height=-64"], "type height=8"),
        (["best_of=0"], "best_of=0 is out of range"),
        (["clip_skip=0"], r"clip_skip=0 is out of range; .* null, or >= 1"),
        (["batch_size=0"], "batch_size=0 is out of range"),
        (["limit=0"], "limit=0 is out of range"),
        (["strength=0.5"], "type image=FILE as well"),
        (["image=a.png", "strength=1.5"], "strength=1.5 is out of range"),
        (["image=a.png", "strength=0"], "strength=0 is out of range"),
        (["image=a.png", "strength=0.04"], "less than one step; type sampler.steps=25"),
        (["negative_prompt=x", "sampler.guidance_scale=1"], "negative_prompt has no effect"),
        (["seeds=0"], "seeds=0 is out of range"),
        (["seeds=-1"], "seeds"),
        (["seeds=1.5"], "seeds"),
        (["seeds=[1,x]"], "seeds"),
        (["seeds=true"], "seeds"),
        (["seeds=[9223372036854775808]"], "seeds"),
        (["seeds=[]"], "seeds"),
        (["lora_scale=x"], "lora_scale=x is out of range"),
        (["lora_scale=[]"], "lora_scale"),
        (["lora_scale=nan"], "lora_scale"),
        (["checkpoints=best"], "checkpoints=best is out of range; accepted: base, exported, kept"),
        (["checkpoints=[]"], "checkpoints"),
        (["sampler.name=heun"], "sampler.name=heun is out of range; accepted: .*unipc.*euler_anc"),
        (["prompt=[a (b), c"], None),
        (["prompt=[a (b), c]"], "prompt holds a list that cannot be read"),
    ],
)  # fmt: skip
def test_mistakes(typed, says):
    if says is None:
        assert config(*typed).prompt == ["[a (b), c"]
        return
    with pytest.raises(UserError, match=says):
        config(*typed)


@pytest.fixture
def run(tmp_path):
    """The names of a training's folders, of LoRA, with best=150 and last=450."""
    folder = tmp_path / "mine" / "finetune" / "checkpoints"
    for step in (75, 150, 450):
        (folder / f"step-{step:08d}").mkdir(parents=True)
    (folder / "best").symlink_to("step-00000150")
    (folder / "last").symlink_to("step-00000450")
    (folder.parent / "config.yaml").write_text("method:\n  name: lora\n")
    return tmp_path / "mine"


def chosen(run, *typed):
    return choices(config(f"run.root={run.parent}", f"run.name={run.name}", *typed))


def test_checkpoints_by_name_and_step(run):
    assert chosen(run) == [Choice(150)]
    assert chosen(run, "checkpoints=all") == [Choice(0), Choice(75), Choice(150), Choice(450)]
    assert chosen(run, "checkpoints=[last,base,75,last]") == [Choice(450), Choice(0), Choice(75)]


def test_scales_multiply_checkpoints_but_not_the_base(run):
    assert chosen(run, "checkpoints=[base,75]", "lora_scale=[0,1]") == [
        Choice(0), Choice(75, 0.0), Choice(75, 1.0),
    ]  # fmt: skip
    assert Choice(75, 0.5).folder == "step-00000075-scale-0.5"
    assert Choice(75, 0.5).label(True) == "step 75\nLoRA × 0.5"


def test_kept_is_what_the_evaluation_says(run):
    with pytest.raises(UserError, match=r"python -m evaluate run\.name=mine"):
        chosen(run, "checkpoints=kept")
    (run / "evaluate").mkdir()
    for kept, expected in (("75", Choice(75)), ("0", Choice(0))):
        (run / "evaluate" / "report.json").write_text(f'{{"verdict": {{"kept": {kept}}}}}')
        assert chosen(run, "checkpoints=kept") == [expected]
    for content in ("{", '{"verdict": null}', '{"verdict": {"kept": 80}}'):
        (run / "evaluate" / "report.json").write_text(content)
        with pytest.raises(UserError, match="checkpoints="):
            chosen(run, "checkpoints=kept")


def test_what_is_not_there(run):
    with pytest.raises(
        UserError, match=r"no checkpoint of step 80; it holds: base, 75, 150, 450\. Type"
    ):
        chosen(run, "checkpoints=[75,80]")
    (run / "finetune" / "checkpoints" / "best").unlink()
    with pytest.raises(UserError, match="does not name a checkpoint; it holds: base, 75"):
        chosen(run)
    (run / "finetune" / "config.yaml").write_text("method:\n  name: full\n")
    with pytest.raises(UserError, match="method=full, which changes the weights themselves"):
        chosen(run, "checkpoints=75", "lora_scale=0.5")


def test_a_base_alone_has_no_checkpoints():
    alone = config("model=starter")
    assert choices(alone) == [Choice(0)]
    for changed in (replace(alone, checkpoints=[75]), replace(alone, lora_scale=[0.5])):
        with pytest.raises(UserError, match="model= draws from a base model"):
            choices(changed)

"""Settings of other trainers: what is said is accepted, and means the same."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import curate.pipeline.config
import finetune.config
from curate.run import foreign, img2dataset, keys, mistakes, refusals
from curate.run.manifest import Manifest, ShardInfo, write_manifest
from curate.run.overrides import CONF, prepare
from curate.run.schema import UserError, to_dataclass

SCHEMAS = {
    "curate": curate.pipeline.config.CurateConfig,
    "train": finetune.config.TrainingConfig,
}
NOTHING = "remove it"
CASES = [
    ("min_snr_gamma=5", "objective.weighting=min_snr objective.snr_gamma=5"),
    ("objective.min_snr_gamma=1", "objective.weighting=min_snr objective.snr_gamma=1"),
    ("snr_gamma", "objective.weighting=min_snr objective.snr_gamma=5"),
    ("save_every_n_steps=10", "checkpoint.every=160"),
    ("checkpointing_steps=500", "checkpoint.every=8000"),
    ("lr_warmup_steps=100", "optim.warmup=1600"),
    ("optim.warmup_steps=100", "optim.warmup=1600"),
    ("lr_warmup_steps", "optim.warmup=16000"),
    ("sample_every_n_steps=10", "heldout.every=160"),
    ("validation_steps=10", "heldout.every=160"),
    ("max_train_steps=10", "train.samples=160"),
    ("max_train_epochs=2", "train.samples=15000"),
    ("train.epochs=2", "train.samples=15000"),
    ("num_train_epochs=2", "train.samples=15000"),
    ("save_every_n_epochs=1", "checkpoint.every=15000"),
    ("max_token_length=225", "model.caption_tokens=225"),
    ("model.max_token_length=225", "model.caption_tokens=225"),
    ("v_parameterization=true", "model.prediction_type=v_prediction"),
    ("model.v_parameterization=true", "model.prediction_type=v_prediction"),
    ("model.vae=x", "model.path=FOLDER"),
    ("cache_latents=true", NOTHING),
    ("resume=x", NOTHING),
    ("resume_from_checkpoint=latest", NOTHING),
    ("learning_rate=1e-4", "optim.lr=1e-4"),
    ("optim.learning_rate=1e-4", "optim.lr=1e-4"),
    ("resolution=32", "model.resolution=32"),
    ("resolution=32,32", "model.resolution=32"),
    ("resolution=512,768", "model.resolution=624 buckets.enabled=true"),
    ("sample_prompts=p.txt", "'samples.prompts=[\"a red cup\"]'"),
    ("sample_prompts=a (blue:1.2) cup", "'samples.prompts=[\"a (blue:1.2) cup\"]'"),
    ("validation_prompt=a cup", "'samples.prompts=[a cup]'"),
    ("gradient_checkpointing", "optim.gradient_checkpointing=true"),
    ("enable_bucket", "buckets.enabled=true"),
    ("optimizer_type=AdamW8bit", "optim=adamw8bit"),
    ("optimizer_type=Prodigy", "optim=prodigy"),
    ("optimizer_type=Adafactor", "optim=adafactor"),
    ("optimizer_type=AdamW", "optim=adamw"),
    ("optimizer_type=Lion", "optim=adamw"),
    ("use_8bit_adam", "optim=adamw8bit"),
    ("use_8bit_adam=false", NOTHING),
    ("flip_aug", "data.flip=true"),
    ("random_flip=false", "data.flip=false"),
    ("random_crop", "data.crops=4"),
    ("masked_loss", "objective.mask=true"),
    ("fp8_base", "method.base_weights=fp8"),
    ("reg_data_dir=x", "replay.share=0.25"),
    ("class_data_dir=x", "replay.share=0.25"),
    ("train_data_dir=my pics", "dataset=folder 'dataset.root=my pics' run.name=mine"),
    ("instance_prompt=a cup", "dataset=folder dataset.root=FOLDER 'dataset.caption=a cup'"),
    ("network_module=networks.lora", "method=lora"),
    ("network_module=lycoris.kohya", "method=locon"),
    ("network_dim=8", "method.rank=8"),
    ("network_alpha=8", "method.alpha=8"),
    ("network_train_unet_only", NOTHING),
    ("train_text_encoder", "method.text_encoder=true"),
    ("text_encoder_lr=1e-5", "method.text_encoder=true optim.text_encoder_lr=1e-5"),
    ("caption_extension=.txt", NOTHING),
    ("zero_terminal_snr", "objective.zero_terminal_snr=true"),
    ("shuffle_caption", "train.shuffle_caption=true"),
    ("keep_tokens=2", "train.shuffle_caption=true train.keep_tokens=2"),
    ("caption_tag_dropout_rate=0.2", "train.caption_tag_dropout=0.2"),
    ("caption_dropout_rate=0.2", "train.caption_dropout=0.2"),
    ("noise_offset=0.1", "objective.noise_offset=0.1"),
    ("ip_noise_gamma=0.05", "objective.input_perturbation=0.05"),
    ("debiased_estimation_loss", "objective.weighting=debiased"),
    ("clip_skip=2", "model.clip_skip=2"),
    ("xformers", NOTHING),
    ("sdpa", NOTHING),
    ("enable_xformers_memory_efficient_attention", NOTHING),
    ("seed=42", "train.seed=42"),
    ("output_dir=out", "run.root=out"),
    ("output_name=mine", "run.name=mine"),
    ("pretrained_model_name_or_path=a/b", "model.path=a/b"),
    ("train_batch_size=4", "optim.batch_size=4"),
    ("gradient_accumulation_steps=4", "optim.gradient_accumulation=4"),
    ("lr_scheduler=cosine_with_restarts", "optim.schedule=cosine"),
    ("mixed_precision=bf16", "optim.mixed_precision=bf16"),
    ("max_grad_norm=1", "optim.max_grad_norm=1"),
]  # fmt: skip


def _as_option(typed):
    with pytest.raises(UserError) as caught:
        mistakes.refuse([f"--{typed}"], "train")
    return str(caught.value)


def _as_setting(typed):
    name, _, value = typed.partition("=")
    if known := keys.keys("train").get(name):
        return refusals.wrong_value(known, value or "true", "train")
    return refusals.unknown_key(f"{name}={value or 'true'}", "train", typed=[typed])


@cache  # composing takes most of the time
def _accepted(settings, section):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(section, overrides=prepare(settings))
    return to_dataclass(cfg, SCHEMAS[section])


@pytest.mark.parametrize("form", [_as_option, _as_setting])
@pytest.mark.parametrize(("typed", "says"), CASES, ids=lambda value: value)
def test_what_another_trainer_calls_otherwise_is_answered_by_what_is_accepted(
    form, typed, says, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where no run is
    said = form(typed)
    if says == NOTHING:
        assert said.endswith(NOTHING)
        return
    assert re.search(
        rf"(?:[Tt]ype|did you mean) (?:python -m curate )?{re.escape(says)}(?:, |$)", said
    )
    _accepted(tuple(shlex.split(says)), "curate" if "python -m curate" in said else "train")


@pytest.mark.parametrize("name", sorted(foreign.ROWS))
def test_each_row_of_the_table_has_an_example_that_is_accepted(name):
    said = foreign.advice(name, "", [], "train")
    if not said.endswith(NOTHING):
        settings = (*shlex.split(said.rpartition("type ")[2].removeprefix("python -m curate ")),)
        assert _accepted(settings, "curate" if "python -m curate" in said else "train")


FETCHING = [
    ("url_list=my urls.parquet", "dataset=table 'dataset.path=my urls.parquet'"),
    ("url_col=URL", "dataset.url_column=URL"),
    ("caption_col=TEXT", "'dataset.caption_columns=[TEXT]'"),
    ("output_folder=out", "dataset.images_dir=out"),
    ("number_sample_per_shard=1000", "fetch.rows_per_shard=1000"),
    ("thread_count=256", "fetch.connections=256"),
    ("timeout=20", "fetch.timeout_s=20"),
    ("fetch.timeout=20", "fetch.timeout_s=20"),
    ("retries=3", "fetch.retries=3"),
    ("min_image_size=256", "filters.image.min_side_px=256"),
    ("max_aspect_ratio=2", "filters.image.max_aspect=2"),
    ("verify_hash=[md5,md5]", "fetch.verify=true"),
    ("user_agent_token=me", "fetch.contact=you@example.org"),
    ("enable_wandb=True", "tracker=wandb"),
    ("image_size=512", NOTHING),
    ("processes_count=16", NOTHING),
    ("disallowed_header_directives=[]", NOTHING),
]


@pytest.mark.parametrize("is_option", [True, False])
@pytest.mark.parametrize(("typed", "says"), FETCHING, ids=lambda value: str(value))
def test_what_img2dataset_calls_otherwise_is_answered_by_what_is_accepted(typed, says, is_option):
    if is_option:
        with pytest.raises(UserError) as caught:
            mistakes.refuse([f"--{typed}"], "curate")
        said = str(caught.value)
    else:
        said = refusals.unknown_key(typed, "curate", typed=[typed])
    if says == NOTHING:
        assert said.endswith(NOTHING)
        return
    assert re.search(rf"[Tt]ype {re.escape(says)}(?:, |$)", said)
    of_a_table = "dataset." in says and "dataset=" not in says
    chosen = ["dataset=table", "dataset.path=t.csv"] if of_a_table else ["dataset=folder"]
    _accepted((*chosen, *shlex.split(says)), "curate")


README = (CONF.parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", img2dataset.ROWS)
def test_each_option_of_img2dataset_is_answered_and_in_the_readme(name):
    said = foreign.advice(name, "", [], "curate")
    if not said.endswith(NOTHING):
        settings = shlex.split(said.rpartition("type ")[2])
        chosen = ["dataset=table", "dataset.path=t.csv"] if "dataset=" not in said else []
        _accepted((*chosen, *settings), "curate")
    table = README.partition("### If you come from img2dataset")[2].partition("\n#")[0]
    assert re.search(rf"^\|[^|]*`{name}`[^|]*\|", table, re.MULTILINE)


def test_what_a_curation_has_itself_is_not_taken_for_img2datasets():
    assert foreign.advice("fetch.retries", "5", [], "curate") == ""
    assert foreign.advice("retries", "5", [], "train") == ""


def test_readme_has_a_row_for_each_and_is_named_where_nothing_is_known():
    readme = (CONF.parent / "README.md").read_text("utf-8")
    assert "### If you come from kohya" in readme
    for form in (_as_option, _as_setting):
        assert foreign.TABLE_IN_README in form("xyzzy=1")


@pytest.mark.parametrize(
    ("typed", "samples"),
    [(["run.name=mine"], 2 * 70), (["run.name=x", "data.run=mine"], 2 * 70), ([], 2 * 70),
     (["data.runs={mine: 2}"], 15000), (["run.name=gone"], 15000)],
)  # fmt: skip
def test_epochs_are_of_the_pictures_that_the_run_has(tmp_path, monkeypatch, typed, samples):
    monkeypatch.chdir(tmp_path)
    sizes = [("train", 30), ("train", 40), ("val", 500)]
    shards = tuple(ShardInfo(f"{n}.tar", split, n, 1, "0") for split, n in sizes)
    folder = Path("runs/mine/curate")
    folder.mkdir(parents=True)
    write_manifest(folder, Manifest(shards, {}, {}, "png"))
    assert f"type train.samples={samples}" in foreign.advice(
        "max_train_epochs", "2", typed, "train"
    )


@pytest.mark.parametrize("batch", ["optim.batch_size=4", "--train_batch_size=4"])
def test_steps_are_of_the_batch_that_was_typed(batch):
    said = foreign.advice("save_every_n_steps", "10", [batch], "train")
    assert "type checkpoint.every=40, which is 10 steps of optim.batch_size=4" in said


def test_a_key_that_there_is_is_not_taken_for_another_trainers():
    assert foreign.advice("samples.steps", "5", [], "train") == ""
    assert foreign.advice("samples.seed", "5", [], "train") == ""
    assert foreign.advice("seed", "5", [], "evaluate") == ""


@pytest.mark.parametrize(
    ("typed", "entries"),
    [("a cup", ["a cup"]), ("[a (blue:1.2) cup]", ["a (blue:1.2) cup"]),
     ("[a (red, blue:1.2) cup, b]", ["a (red, blue:1.2) cup", "b"]), ('say "a: b"', ['say "a: b"'])],
)  # fmt: skip
def test_what_was_typed_for_a_list_is_one(typed, entries):
    setting = f"samples.prompts={foreign.as_list(typed)}"
    assert _accepted((setting,), "train").samples.prompts == entries

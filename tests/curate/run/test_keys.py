"""What keys there are, and which of them a name may mean."""

import pytest

import curate.pipeline.config  # noqa: F401 (these register what the commands register)
import evaluate.config
import evaluate.sample_config  # noqa: F401
import finetune.config
import workflows.retraining.config  # noqa: F401
from curate.run import keys


def test_every_key_of_a_schema_and_of_all_choices_is_known():
    train = keys.keys("train")
    assert train["optim.lr"] == keys.Key("optim.lr", float, 1e-4, nullable=False)
    assert train["heldout.patience"].kind == "a whole number"
    assert train["heldout.patience"].nullable
    assert train["method.targets"].kind == "a list"
    assert train["run"].is_group
    assert train["run"].hint is finetune.config.RunConfig
    assert "optim.lr" not in keys.keys("curate")
    assert {"dataset.root", "dataset.path", "dataset.mismatch"} <= keys.keys("curate").keys()


@pytest.mark.parametrize(
    ("section", "name", "means"),
    [
        ("train", "lr", "optim.lr"),
        ("train", "run.nmae", "run.name"),
        ("train", "optm.lr", "optim.lr"),
        ("train", "max_grad_norm", "optim.max_grad_norm"),
        ("train", "learning_rate", "optim.lr"),
        ("train", "train_text_encoder", "method.text_encoder"),
        ("train", "text_encoder_lr", "optim.text_encoder_lr"),
        ("curate", "datset.root", "dataset.root"),
        ("curate", "dry-run", "dry_run"),
        ("train", "runname", "run.name"),
        ("retrain", "runname", "run.name"),
        ("train", "run-name", "run.name"),
        ("evaluate", "rn", "run.name"),
        ("evaluate", "run", "run.name"),
        ("curate", "splitval", "split.val"),
        ("curate", "dataset_root", "dataset.root"),
        ("retrain", "notify_command", "notify.command"),
        ("evaluate", "gridd", "grid.items"),
        ("evaluate", "steps", "sampler.steps"),
    ],
)
def test_a_name_means_the_key_that_is_likest(section, name, means):
    assert keys.meant(name, section)[0] == means


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("section", ["curate", "train", "evaluate", "sample", "retrain"])
def test_no_suggestion_is_a_group_that_takes_no_value(section):
    known, tops = keys.keys(section), keys.groups(section)
    for key in known:
        for name in (key.replace(".", ""), key.replace(".", "_"), key[:-1], f"{key}s"):
            for found in keys.meant(name, section):
                assert found in tops or not known[found].is_group, (name, found)


def test_a_name_like_no_key_means_none():
    assert keys.meant("xyzzy", "train") == []


def test_foreign_names_mean_keys_that_exist():
    known = {key for section in keys.sections() for key in keys.keys(section)}
    assert set(keys.FOREIGN.values()) <= known


def test_choices_of_a_key_and_examples():
    assert keys.choices_with("method", "rank") == ["dora", "locon", "loha", "lokr", "lora"]
    assert "coco" in keys.choices_with("dataset", "root")
    assert keys.example("curate", "dry_run") == "500"
    assert keys.example("train", "optim.lr") == "1e-4"
    assert keys.example("train", "optim.eps") == ""
    assert keys.owners("clip.name", "train") == ["curate", "evaluate", "sample"]

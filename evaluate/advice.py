"""What to do after a verdict, with the configuration keys to type."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from curate.decide.config import SMALLEST_JUDGED
from curate.run.finished import is_of_retraining
from curate.run.joined import shown
from curate.run.next_command import COMMANDS, named, run_arguments
from curate.run.overrides import key_of
from curate.run.provenance import read_config
from curate.run.schema import UserError
from evaluate.verdict import groups_needed, judge
from finetune.config import TrainConfig
from finetune.config.retention import AUTO, ExportConfig
from finetune.rules import Evidence, Word


def advise(evidence: Evidence, config: TrainConfig, grid_items: int, costly: bool = False) -> str:
    """A few sentences.

    Args:
        evidence: that the verdict follows from.
        config: of the training.
        grid_items: ``grid.items`` of this evaluation.
        costly: whether the training took something from the base, which more training would make worse.
    """
    word, lr = judge(evidence), config.optim.lr
    if costly and word in (Word.IMPROVING, Word.SLOWING, Word.CONVERGED):
        return (
            "Look at the pictures first: the loss fell, and the base lost something for it. More training lowers "
            f"the loss further and costs more. {keep_more(config)}"
        )
    if word is Word.DIVERGED:
        return (
            "Train again with a lower learning rate: "
            f"{_another_run(config, f'optim.lr={lr / 3:.2g}')}"
        )
    if word is Word.OVERFITTING:
        return (
            "Use the kept checkpoint. For a better one, add data, or train "
            f"{_fewer_weights(config)}for fewer samples."
        )
    if word is Word.REGRESSING:
        return (
            "Use the kept checkpoint. The loss on training pictures did not clearly fall either, so the "
            "learning rate was probably too high towards the end: "
            f"{_another_run(config, 'optim.schedule=cosine')}"
        )
    if word is Word.NO_EFFECT:
        return (
            f"Train longer ({_typed(config, 'train.samples')}), or with a higher learning rate: "
            f"{_another_run(config, f'optim.lr={lr * 3:.2g}')}"
        )
    if word is Word.IMPROVING:
        return f"The loss was still falling: {_longer(config)}"
    if word is Word.SLOWING:
        return (
            "Use the kept checkpoint. Whether more training helps is not known: "
            f"{_decidable(evidence, config, grid_items)}"
        )
    if word is Word.CONVERGED:
        return "Held-out loss no longer changes: more or other data may improve it, more training will not."
    return _decidable(evidence, config, grid_items)


def about_captions(config: TrainConfig) -> str:
    """What to do where captions hardly matter to the model: they are wrong, or it does not know what they say."""
    reports = " and ".join(str(curate_dir / "report.html") for curate_dir in config.curations)
    return (
        "Do not use this model: captions hardly matter to it. Either most of them belong to other pictures, or the "
        f"base does not know what they say. Look at some pairs in {reports}. If captions "
        f"are wrong, correct them at their source, and {_curate_again(config)}; if they are right, train "
        f"from another base ({_typed(config, 'model.path=...')})."
    )


def against_copying(config: TrainConfig) -> str:
    """What helps a run whose best checkpoint copies training pictures; more training does not."""
    return (
        "Use the kept checkpoint. For a better one that does not copy, add data, or train "
        f"{_fewer_weights(config)}for fewer samples."
    )


def _fewer_weights(config: TrainConfig) -> str:
    """To go on with after "train"; "" where a method has one number of weights."""
    change = config.method.fewer_weights()
    return f"fewer weights ({_typed(config, change)}) or " if change else ""


def export_kept(run_dir: Path, step: int) -> str:
    """How the kept checkpoint is exported, where training exported another one."""
    return f"To export the kept checkpoint, type: python -m finetune.export {named(run_dir)} step={step}"


def _decidable(evidence: Evidence, config: TrainConfig, grid_items: int) -> str:
    if grid_items < SMALLEST_JUDGED:
        return f"Raise grid.items to {SMALLEST_JUDGED} or more."
    if evidence.train_probe.shape[1] < SMALLEST_JUDGED:
        return f"Add pictures to the data set and {_curate_again(config)}."
    needed, there = groups_needed(evidence), evidence.val.shape[1]
    split = "curate.split.val" if is_of_retraining(config.run.folder) else "split.val"
    if needed <= there:
        return f"More checkpoints would show it: {_longer(config)}"
    return (
        f"About {needed} groups of held-out pictures would decide it (there are {there}): raise grid.items, and if "
        f"the run has fewer, raise {split} and {_curate_again(config)}."
    )


def _curate_again(config: TrainConfig) -> str:
    if is_of_retraining(config.run.folder):
        return f"type the same {COMMANDS['retrain']} again"
    return "curate again under another run.name"


def _retrain_with(change: str) -> str:
    """A run of a series is not changed once it has ended: the next one takes another setting."""
    return (
        f"write {change} into section train of the experiment or, for this once, type the same {COMMANDS['retrain']} with "
        f"train.{change}"
    )


def _typed(config: TrainConfig, setting: str) -> str:
    """A setting of the training as the run's command takes it."""
    return f"train.{setting}" if is_of_retraining(config.run.folder) else setting


def _longer(config: TrainConfig) -> str:
    """With a constant rate the same run can go on; a schedule that ends needs another run."""
    samples = f"train.samples={2 * config.train.samples}"
    if is_of_retraining(config.run.folder):
        return _retrain_with(samples)
    if config.optim.schedule == "constant":
        return f"type the same training command with {samples}"
    return (
        f"optim.schedule={config.optim.schedule} cannot be extended, so start another run: "
        f"{_another_run(config, samples)}"
    )


def _another_run(config: TrainConfig, change: str) -> str:
    """Another training on the same shards, with the settings of this one as they were typed, but for one.

    A run that has checkpoints keeps its configuration.
    """
    old = config.run.folder
    if is_of_retraining(old):
        return _retrain_with(change)
    new = old.with_name(f"{old.name}-2")
    data = config.data
    curation = shlex.quote(
        f"data.runs={shown(data.runs)}"
        if data.runs
        else f"data.run={config.curate_dir.parent.name}"
    )
    replaced = {"run.name", "run.root", "data.run", "data.runs", key_of(change)}
    typed = read_config(config.folder / "config.yaml").get("provenance", {}).get("overrides") or []
    settings = [
        shlex.quote(text)
        for text in typed
        if key_of(text) not in replaced and not key_of(text).startswith("data.runs.")
    ]
    return " ".join(["type", COMMANDS["train"], *settings, run_arguments(new), curation, change])


def _takes_scales(config: TrainConfig) -> bool:
    """Whether the training may have ``export.scale=auto`` as well."""
    try:
        replace(config, export=ExportConfig(scale=AUTO))
    except UserError:
        return False
    return True


def keep_more(config: TrainConfig) -> str:
    """What to type so that another training loses less of what the base could do.

    All of it makes the weights change less, for LoRA and full fine-tuning alike.
    """
    changes, less = (
        f"optim.lr={config.optim.lr / 3:.2g}",
        "To lose less of what the base could do, ",
    )
    if config.export.scales == [1.0] and _takes_scales(config):  # and not chosen among several
        share = f"export.scale={AUTO}"
        again = (
            _retrain_with(share)
            if is_of_retraining(config.run.folder)
            else f"type the same training command with {share}, which trains nothing again"
        )
        less += f"export a share of what was trained: {again}. Or, in another training, "
    samples = _typed(config, f"train.samples={max(config.train.samples // 2, 1)}")
    fewer = config.method.fewer_weights()
    weights = f"fewer weights ({_typed(config, fewer)}), " if fewer else ""
    return (
        f"{less}take an earlier checkpoint, or train for fewer samples "
        f"({samples}), {weights}or "
        f"with a lower learning rate: {_another_run(config, changes)}"
    )

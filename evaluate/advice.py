"""What to do after a verdict, with the configuration keys to type."""

from __future__ import annotations

import shlex

from curate.pipeline.config import SMALLEST_JUDGED
from curate.run.cli import run_arguments
from evaluate.verdict import Word, items_needed, judge
from finetune.config import TrainConfig
from finetune.overfitting import Evidence


def advise(evidence: Evidence, config: TrainConfig, grid_items: int) -> str:
    """A few sentences; ``config`` is the run's own, ``grid_items`` the pictures of either kind asked for."""
    word, lr = judge(evidence), config.optim.lr
    if word is Word.DIVERGED:
        return f"Train again with a lower learning rate: {_anew(config, f'optim.lr={lr / 3:.2g}')}"
    if word is Word.OVERFITTING:
        return (
            "Use the kept checkpoint. For more, add data, or train fewer weights "
            f"({_smaller(config)}) for fewer samples."
        )
    if word is Word.REGRESSING:
        return (
            "Use the kept checkpoint. Training pictures got worse as well, which is a learning rate "
            f"too high for the end: {_anew(config, 'optim.schedule=cosine')}"
        )
    if word is Word.NO_EFFECT:
        return (
            "Train longer, or with a higher learning rate: "
            f"{_anew(config, f'optim.lr={lr * 3:.2g}')}"
        )
    if word is Word.IMPROVING:
        return f"It was still getting better: {_longer(config)}"
    if word is Word.CONVERGED:
        return "Held-out loss has settled. More or other data is what would move it now."
    if grid_items < SMALLEST_JUDGED:
        return f"Raise grid.items to {SMALLEST_JUDGED} or more."
    if evidence.train_probe.shape[1] < SMALLEST_JUDGED:
        return "Add pictures to the data set and curate it under another run.name."
    return (
        f"About {items_needed(evidence)} held-out pictures would decide it: raise grid.items here, and "
        "where there are not so many, curate with a larger split.val under another run.name."
    )


def _longer(config: TrainConfig) -> str:
    """Only under a constant rate is a longer run the same run, continued."""
    samples = f"train.samples={2 * config.train.samples}"
    if config.optim.schedule == "constant":
        return f"type the same training command with {samples}"
    return f"optim.schedule={config.optim.schedule} starts anew, {_anew(config, samples)}"


def _anew(config: TrainConfig, change: str) -> str:
    """Another run on the same shards; a run that was begun keeps its configuration."""
    old = config.run.folder
    new = old.with_name(f"{old.name}-2")
    copy = f"mkdir {shlex.quote(str(new))} && cp -r {shlex.quote(str(old / 'curate'))} "
    copy += shlex.quote(str(new))
    return f"{copy}, then train with {run_arguments(new)} {change}"


def _smaller(config: TrainConfig) -> str:
    rank = getattr(config.method, "rank", None)
    return f"method.rank={max(rank // 2, 1)}" if rank else "method=lora"

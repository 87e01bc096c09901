"""What to do after a verdict, with the configuration keys to type."""

from __future__ import annotations

from curate.config import SMALLEST_JUDGED
from evaluate.verdict import Evidence, Word, items_needed, judge
from finetune.config import TrainConfig


def advise(evidence: Evidence, config: TrainConfig) -> str:
    """One or two sentences; ``config`` is the run's own."""
    word, name = judge(evidence), config.run.name
    if word is Word.DIVERGED:
        return (
            "Train again with a lower learning rate: "
            f"run.name={name}-2 optim.lr={config.optim.lr / 3:.2g}"
        )
    if word is Word.OVERFITTING:
        return (
            "Use the kept checkpoint. For more, add data, or train fewer weights "
            f"({_smaller(config)}) for fewer samples."
        )
    if word is Word.REGRESSING:
        return (
            "Use the kept checkpoint. Training pictures got worse as well, which is a learning rate "
            f"too high for the end: run.name={name}-2 optim.schedule=cosine"
        )
    if word is Word.NO_EFFECT:
        return (
            "Train longer, or with a higher learning rate: "
            f"run.name={name}-2 optim.lr={config.optim.lr * 3:.2g}"
        )
    if word is Word.IMPROVING:
        return (
            "It was still getting better: type the same training command with "
            f"train.samples={2 * config.train.samples}{_anew(config)}"
        )
    if word is Word.CONVERGED:
        return "Held-out loss has settled. More or other data is what would move it now."
    if evidence.probe.shape[1] < SMALLEST_JUDGED:
        return "Add pictures: there are too few to train on and to judge by."
    return (
        f"About {items_needed(evidence)} held-out pictures would decide it: raise split.val when "
        "curating, and grid.items here."
    )


def _anew(config: TrainConfig) -> str:
    """Only under a constant rate is a longer run the same run, continued."""
    if config.optim.schedule == "constant":
        return ""
    return f" run.name={config.run.name}-2 (optim.schedule={config.optim.schedule} starts anew)"


def _smaller(config: TrainConfig) -> str:
    rank = getattr(config.method, "rank", None)
    return f"method.rank={max(rank // 2, 1)}" if rank else "method=lora"

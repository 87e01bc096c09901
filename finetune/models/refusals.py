"""Settings that a pipeline may not have, and what they mean to a fingerprint; without torch, to refuse them at once."""

from __future__ import annotations

from curate.run.schema import UserError
from finetune.models.config import ModelConfig


def refuse_layer(clip_skip: int, layers: int, option: str = "clip_skip") -> None:
    """Refuse a layer that a text encoder has not.

    Args:
        clip_skip: counted from the one that the pipeline takes, which is 1.
        layers: how many there are, counted from that one.
        option: that named it.

    Raises:
        UserError: says what to type.
    """
    if clip_skip > layers:
        raise UserError(
            f"{option}={clip_skip} is out of range: a text encoder of this model has {layers} "
            f"layer{'s' if layers > 1 else ''} up to the one that the pipeline takes, which is 1. Type {option}={layers}"
        )


def refuse_epsilon(config: ModelConfig, predicts: str | None) -> None:
    """Refuse ``objective.zero_terminal_snr`` where a model predicts epsilon, which without signal says nothing.

    Raises:
        UserError: it does; says what it needs.
    """
    if predicts == "epsilon":
        raise UserError(
            f"objective.zero_terminal_snr=true needs a model with prediction_type v_prediction or sample, and "
            f"model.path={config.path} predicts epsilon: at a step without signal that is the input itself. Remove it, or "
            "type a model that predicts v, such as model=sd21"
        )


def mark_of(clip_skip: int, chunks: int) -> bytes:
    """What a fingerprint of captions holds beside weights and tokenizer: nothing where they are read as pipelines do."""
    said = [f"clip_skip {clip_skip}"] * (clip_skip != 1) + [f"chunks {chunks}"] * (chunks != 1)
    return " ".join(said).encode()

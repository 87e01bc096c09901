"""Which layer of a text encoder the U-Net reads (``model.clip_skip``); apart from the models, to refuse without torch."""

from __future__ import annotations

from curate.run.schema import UserError


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
            f"{option}={clip_skip} is out of range: this text encoder has {layers} layers. "
            f"Type {option}={layers} or less; 1 is the last layer"
        )


def mark_of(clip_skip: int) -> bytes:
    """What a fingerprint of captions holds beside weights and tokenizer: nothing for the layer that pipelines take."""
    return b"" if clip_skip == 1 else f"clip_skip {clip_skip}".encode()

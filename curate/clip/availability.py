"""Find out before anything heavy loads whether the weights of a CLIP are here or can be fetched."""

from __future__ import annotations

from pathlib import Path

from curate.clip.config import ClipConfig
from curate.clip.models import LOCAL, weights_file
from curate.run import hub
from curate.run.schema import UserError

WITHOUT_HUB = (
    "Without the hub type clip.pretrained=FILE with a copy of the weights, clip=custom clip.name=local-dir:FOLDER "
    "for another CLIP, or clip=starter filters=default to try with the built-in one, which knows drawings only"
)


def check_available(config: ClipConfig, instead: str = WITHOUT_HUB) -> None:
    """Refuse weights that are neither in the local cache nor can be fetched, and say what to do ``instead``.

    open_clip is imported, which takes seconds, only where the hub is out of reach and something is cached.

    Raises:
        UserError: says what to type instead.
    """
    if config.name.startswith(LOCAL) or weights_file(config) is not None:
        return
    if hub.is_reachable() or (_anything_cached() and _is_cached(config)):
        return
    raise UserError(
        f"clip.name={config.name} clip.pretrained={config.pretrained}: the weights are not on this machine, and the "
        f"Hugging Face hub cannot be reached. {instead}"
    )


def _anything_cached() -> bool:
    from huggingface_hub import constants

    folders = (Path(constants.HF_HUB_CACHE), Path("~/.cache/clip").expanduser())
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)


def _is_cached(config: ClipConfig) -> bool:
    """Whether open_clip would find the weights of a tag; True for a tag that only ``check_tag`` can judge."""
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    weights = open_clip.get_pretrained_cfg(config.name, config.pretrained or "")
    if not weights:
        return True
    repository, _, name = str(weights.get("hf_hub", "")).rpartition("/")
    if repository:
        names = (name,) if name else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
        return hub.cached_file(repository, names) is not None
    file = str(weights.get("url", "")).rpartition("/")[2]
    return (Path("~/.cache/clip").expanduser() / file).is_file()

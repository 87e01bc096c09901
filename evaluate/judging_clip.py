"""Which CLIP measures prompt following: by default the one that the run's curation scored with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from curate.clip import availability, models
from curate.clip.config import ClipConfig
from curate.run.finished import curate_again
from curate.run.folder import curate_dir_of
from curate.run.joined import curations_of
from curate.run.provenance import is_damaged, read_config
from curate.run.schema import UserError

CURATION = "curation"  # clip.name of clip=curation
_INSTEAD = "Type clip=vit_b32_openai or another CLIP, or samples.clip_captions=0 to leave prompt following out"


def settle(clip: ClipConfig, run_dir: Path, needed: bool, instead: str = _INSTEAD) -> ClipConfig:
    """The CLIP to measure with, found and checked before anything heavy loads.

    Args:
        clip: of the configuration; ``clip.pretrained``, where it is given, wins over the curation's.
        run_dir: of the run that is judged.
        needed: whether anything will be measured with it; if not, only a CLIP that was named is checked.
        instead: what to type where there is none.

    Raises:
        UserError: the curation does not say which, or there is no such model, or no weights.
        FileNotFoundError: a folder or file that the CLIP names is not there.
    """
    if clip.name == CURATION:
        if not needed:
            return clip
        clip = _of_curation(clip, run_dir, instead)
    models.check(clip)
    if needed:
        availability.check_available(clip, instead)
    return clip


def _of_curation(clip: ClipConfig, run_dir: Path, instead: str) -> ClipConfig:
    """The model and weights that pairs were scored with; how it computes is this configuration's."""
    found = named_by_curation(curate_dir_of(run_dir))
    if found is None:
        where = curations_of(curate_dir_of(run_dir))[0] / "config.yaml"
        raise UserError(f"clip=curation: {where} does not name a CLIP. {instead}")
    return replace(clip, name=found.name, pretrained=clip.pretrained or found.pretrained)


def named_by_curation(curate_dir: Path) -> ClipConfig | None:
    """The CLIP in a curation's ``config.yaml``; None where that does not name one.

    Raises:
        UserError: the file is damaged.
    """
    # Several that are trained on together were scored by one CLIP, see finetune.joined.
    path = curations_of(curate_dir)[0] / "config.yaml"
    if path.is_file() and is_damaged(path):
        raise UserError(
            f"{path} is damaged, or was edited, so the CLIP that scored the pairs is not known; "
            f"{curate_again(path.parents[1])}"
        )
    known: Any = read_config(path).get("clip")
    if not isinstance(known, dict) or not known.get("name"):
        return None
    return ClipConfig(name=str(known["name"]), pretrained=known.get("pretrained"))


def label_of_curation(curate_dir: Path) -> str | None:
    """The same as reports name it."""
    found = named_by_curation(curate_dir)
    return models.label(found) if found else None

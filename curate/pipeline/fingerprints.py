"""The manifest of a curation: what the finished set holds, and fingerprints of what decided it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.clip.models import fingerprint
from curate.decide.config import SplitConfig
from curate.decide.frozen import HeldOutAgain
from curate.filters import blocklist
from curate.filters.config import FiltersConfig
from curate.pack.stage import Packed
from curate.pipeline.config import CurateConfig
from curate.run import ledger
from curate.run.files import sha256_of
from curate.run.manifest import Manifest


def manifest_of(
    config: CurateConfig, funnel: dict[str, Any], packed: Packed, again: HeldOutAgain | None
) -> Manifest:
    """What the finished set holds, with fingerprints of scorer, filters, split and heads."""
    counts = ("pairs_in", ledger.KEPT, ledger.DROPPED, ledger.UNREADABLE, "samples")
    heads = {name: sha256_of(Path(head.path)) for name, head in config.heads.items()}
    return Manifest(
        shards=tuple(packed.shards),
        totals={name: funnel[name] for name in counts},
        fingerprint={
            "scorer": fingerprint(config.scoring_clip, config.annotate.draft),
            "filters": _digest([_rules(config.filters), _blocked(config.filters)]),
            "split": _digest_of_split(config.split, again),
            "heads": _digest(heads),
        },
        image_format=packed.extension,
        part=config.dataset.shard,
    )


def _digest_of_split(sides: SplitConfig, again: HeldOutAgain | None) -> str:
    """Of the settings, and of the rows of ``split.held_out``, whose file may change under its name or move."""
    settings = asdict(sides)
    del settings["held_out"]
    return _digest(settings if again is None else [settings, again.digest])


def _rules(filters: FiltersConfig) -> dict[str, Any]:
    """The settings; those on consent only where they ask for anything, as earlier releases had none."""
    settings = asdict(filters)
    if not filters.consent.columns:
        del settings["consent"]
    return settings


def _blocked(filters: FiltersConfig) -> list[str]:
    """The words of a blocklist, whose file may change under its name."""
    listed = filters.caption.blocklist
    return blocklist.read(listed) if listed else []


def _digest(value: Any) -> str:
    known = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(known, digest_size=8).hexdigest()

"""What a curation takes the place of: an earlier one of the same name, and what was made from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from curate.pipeline.config import CurateConfig
from curate.run import provenance
from curate.run.manifest import Manifest

_NOT_DATA = {"limit", "sample", "index", "spool"}  # of a source's configuration


def other_data(curate_dir: Path, config: CurateConfig) -> str:
    """A note if the run of this name has shards of other data, perhaps by accident; else "".

    What was measured for them stays, the shards do not.
    """
    if not (curate_dir / "shards").is_dir():
        return ""
    before = provenance.read_config(curate_dir / "config.yaml").get("dataset")
    if not isinstance(before, dict):
        return ""
    now = provenance.redacted(asdict(config.dataset))
    both = (before.keys() & now.keys()) - _NOT_DATA
    changed = sorted(name for name in both if before[name] != now[name])
    if not changed:
        return ""
    return (
        f"note: {config.run.folder} was made of other data ({', '.join(changed)} changed); its "
        "shards and reports are replaced. Another run.name= keeps them"
    )


def training(curate_dir: Path, old: Manifest | None, new: Manifest) -> str:
    """A note if there is a training on shards that are no more, which could not go on; else ""."""
    folder = curate_dir.with_name("finetune")
    if old is None or old.shards == new.shards or not folder.is_dir():
        return ""
    return (
        f"note: {folder} was trained on the shards that these replace, and neither goes on nor is judged "
        "with them. To train on these, curate under another run.name=; to have the former back, curate "
        "as before"
    )

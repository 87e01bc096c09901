"""What a curation takes the place of: an earlier one of the same name, and what was made from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from curate.pack import shards
from curate.pipeline.config import CurateConfig
from curate.run import provenance
from curate.run.cli import UserError

_NOT_DATA = {"limit", "sample", "index", "spool"}  # of a source's configuration


def other_data(curate_dir: Path, config: CurateConfig) -> str:
    """A note if the run of this name, perhaps by accident, was made of other data; else "".

    What was measured for it stays, its shards do not.
    """
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


def old_manifest(curate_dir: Path) -> shards.Manifest | None:
    """The earlier curation's, if it was finished and can be read."""
    try:
        return shards.read_manifest(curate_dir)
    except (FileNotFoundError, UserError):
        return None


def retire(curate_dir: Path, present: shards.Manifest) -> None:
    """Take away the old manifest and report, unless all that they tell of is ``present``.

    Until the last shard is in place they would speak of what is gone.
    """
    if present != old_manifest(curate_dir):
        for stale in ("manifest.json", "report.html"):
            (curate_dir / stale).unlink(missing_ok=True)


def training(curate_dir: Path, old: shards.Manifest | None, new: shards.Manifest) -> str:
    """A note if there is a training on shards that are no more, which could not go on; else ""."""
    folder = curate_dir.with_name("finetune")
    if old is None or old.shards == new.shards or not folder.is_dir():
        return ""
    return (
        f"note: {folder} was trained on the shards that these replace, and neither goes on nor is judged "
        "with them. To train on these, curate under another run.name=; to have the former back, curate "
        "as before"
    )

"""Notes on the previous run of the same name: other data, or a training on its shards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from curate.pipeline.config import CurateConfig
from curate.run import provenance
from curate.run.manifest import Manifest

_NOT_DATA = {
    "limit",
    "sample",
    "index",
    "spool",
    "layout",
}  # keys of ``dataset`` that do not name the data


def other_data(curate_dir: Path, config: CurateConfig) -> str:
    """A note if the run of this name has shards of other data, perhaps by accident; else "".

    Their annotations stay in the cache; the shards are replaced.
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
        f"note: the previous run in {config.run.folder} used other data ({', '.join(changed)} changed); "
        "its shards and reports are replaced. To keep them, type another run.name="
    )


def training(curate_dir: Path, old: Manifest | None, new: Manifest) -> str:
    """A note if there is a training on the previous shards, which cannot resume now; else ""."""
    folder = curate_dir.with_name("finetune")
    if old is None or old.shards == new.shards or not folder.is_dir():
        return ""
    return (
        f"note: {folder} was trained on the previous shards, which are replaced: it can neither resume nor "
        "be judged with the new ones. To train on the new shards, curate under another run.name=; to "
        "restore the previous ones, curate with the previous settings"
    )

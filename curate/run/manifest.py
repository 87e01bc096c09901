"""The manifest of a finished curation: every shard with its size and hash, written last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.run.files import read_json, sha256_once, write_certified
from curate.run.finished import curate_again, to_mend
from curate.run.joined import curations_of, owner_of, path_of
from curate.run.next_command import named
from curate.run.provenance import curate_command
from curate.run.schema import UserError

VERSION = 1


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A shard as the manifest lists it; ``path`` is relative to the manifest's folder."""

    path: str
    split: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished curation holds. It is written last: if it exists, all other files do.

    ``part`` is ``dataset.shard``: one of several parts, which has copies, cut and split of its own. It
    is None, and not in the file, where the data set is whole.
    """

    shards: tuple[ShardInfo, ...]
    totals: dict[str, Any]
    fingerprint: dict[str, str]
    image_format: str
    part: str | None = None

    def digest(self) -> str:
        """64 hex digits that stand for the shards of all splits; a training keeps those of its data."""
        digests = [f"{shard.path} {shard.sha256}" for shard in self.shards]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def sha256_of_shards(self) -> dict[str, str]:
        """By path."""
        return {shard.path: shard.sha256 for shard in self.shards}

    def shards_of(self, split: str) -> list[ShardInfo]:
        """The shards of one side, in order."""
        return [shard for shard in self.shards if shard.split == split]


def read_manifest(curate_dir: Path) -> Manifest:
    """Read ``curate_dir/manifest.json``.

    Raises:
        FileNotFoundError: nothing was curated there, or curation has not finished.
        UserError: the manifest is of another version of this program.
    """
    path = curate_dir / "manifest.json"
    if not path.is_file():
        retry = curate_again(curate_dir.parent)
        raise FileNotFoundError(f"{curate_dir} holds no finished curation; {retry}")
    content = read_json(path)
    if content is None or content.get("version") != VERSION:
        wrong = f"has version {content.get('version')}, not {VERSION}" if content else "is damaged"
        raise UserError(f"{path} {wrong}; {curate_again(curate_dir.parent)}")
    return Manifest(
        shards=tuple(ShardInfo(**shard) for shard in content["shards"]),
        totals=content["totals"],
        fingerprint=content["fingerprint"],
        image_format=content["image_format"],
        part=content.get("part"),
    )


def digest_now(curate_dir: Path, manifest: Manifest) -> str:
    """The digest of a manifest; "changed" where it joins curations of which one has other shards by now."""
    for curation in curations_of(curate_dir):
        if curation == curate_dir:
            continue
        theirs = old_manifest(curation)
        ours = {s.sha256 for s in manifest.shards if owner_of(curate_dir, s.path) == curation}
        if theirs is None or ours != {shard.sha256 for shard in theirs.shards}:
            return "changed"
    return manifest.digest()


def intact(curate_dir: Path, shard: ShardInfo) -> Path:
    """The path of a shard whose bytes are those that the manifest says.

    Raises:
        UserError: they are not, or there is no such file.
    """
    path, run_dir = path_of(curate_dir, shard.path), owner_of(curate_dir, shard.path).parent
    if not path.is_file():
        wrong = "is missing"
    elif sha256_once(path) != shard.sha256:
        wrong = "is damaged or was changed: its sha256 is not the manifest's"
    else:
        return path
    raise UserError(
        f"{path} {wrong}. To see what else is, type: python -m curate.verify {named(run_dir)}; "
        f"then {to_mend(run_dir, f'delete the damaged tars and type: {curate_command(run_dir)}')}"
    )


def write_manifest(curate_dir: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; call it after everything else is written."""
    content = {"version": VERSION, **asdict(manifest)}
    if manifest.part is None:
        del content["part"]
    write_certified(curate_dir / "manifest.json", content)


def write_funnel(curate_dir: Path, funnel: Mapping[str, Any]) -> None:
    """Write ``funnel.json``: how many pairs each rule dropped."""
    write_certified(curate_dir / "funnel.json", funnel)


def read_funnel(curate_dir: Path) -> dict[str, Any]:
    """What ``funnel.json`` holds; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = curate_dir / "funnel.json"
    if (content := read_json(path)) is None and path.is_file():
        raise UserError(f"{path} is damaged; {curate_again(curate_dir.parent)}")
    return content or {}


def stats_path(tar: Path) -> Path:
    """Where a shard's statistics are."""
    return tar.with_name(f"{tar.stem}_stats.json")


def old_manifest(curate_dir: Path) -> Manifest | None:
    """The manifest of the previous curation; None if that was not finished or cannot be read."""
    try:
        return read_manifest(curate_dir)
    except (FileNotFoundError, UserError):
        return None


def retire(curate_dir: Path, unless: Manifest | None = None) -> None:
    """Remove the old manifest, which describes shards that are about to change; the report stays.

    ``unless`` names the manifest of what is there now: where it equals the old one, that stays.
    """
    if unless is None or unless != old_manifest(curate_dir):
        (curate_dir / "manifest.json").unlink(missing_ok=True)

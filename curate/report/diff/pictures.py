"""Thumbnails of pairs that changed: from a run's shards, or from its source where the file is still the same."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from curate.measures.decode import UnreadableImage, decode
from curate.pack.sample import IMAGE_EXTENSIONS
from curate.report import page
from curate.report.diff.results import Difference, State
from curate.report.pictures import ROOM_BYTES, THUMBNAIL_PX
from curate.run import ledger
from curate.run.provenance import read_config
from curate.run.removals import Removals, read_removals, url_columns
from curate.run.schema import UserError

REMOVED = "removed: not shown"
ABSENT = "in no shard, and its file is not at hand"
_FULL = "left out: page size limit"

_PLACES = ("root", "images_dir", "path")  # keys of a data set that say where its pictures are
_OPENED_AT_ONCE = ("cifar10", "openmoji", "shards")  # others list or match all files first

Load = Callable[[str], bytes]
Places = dict[str, dict[str, Any]]  # by key: what the ledger says of where a picture is


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a page: the data URI of a thumbnail, or "" and why there is none."""

    uri: str = ""
    why: str = ""


Pictures = Mapping[tuple[str, str], Shown]
"""By side (``before`` or ``now``) and key."""


def pictures(
    found: Difference, before: Path, now: Path, room_bytes: int = ROOM_BYTES
) -> dict[tuple[str, str], Shown]:
    """The pictures of all examples, as far as they are at hand, within a limit for the page.

    A picture that was removed from one of the runs is shown of neither. Bytes are shown only if they have the hash
    that the ledger says, or if the shard's json does where the picture was encoded again. Of ledgers without hashes,
    pictures are taken from the shards alone.

    Args:
        found: the comparison.
        before, now: the folders ``curate``; one that is gone shows nothing.
        room_bytes: for all thumbnails.
    """
    folders = {"before": before, "now": now}
    removals = [read_removals(folder) for folder in folders.values()]
    shown: dict[tuple[str, str], Shown] = {}
    by_bytes: dict[str, Shown] = {}
    for side, folder in folders.items():
        states = _states(found, side)
        rows = _rows(folder, list(states), removals)
        for key, thumb in _of_side(folder, states, rows, by_bytes):
            fits = len(thumb.uri) <= room_bytes
            room_bytes -= len(thumb.uri) if fits else 0
            shown[side, key] = thumb if fits else Shown(why=_FULL)
    return _without_removed(found, shown)


def _states(found: Difference, side: str) -> dict[str, State]:
    """The examples' pictures on one side by key."""
    states = (getattr(example, side) for kind in found.examples.values() for example in kind)
    return {state.key: state for state in states if state is not None}


def _without_removed(
    found: Difference, shown: dict[tuple[str, str], Shown]
) -> dict[tuple[str, str], Shown]:
    """A picture that is removed on one side is shown on neither."""
    for example in (example for kind in found.examples.values() for example in kind):
        if example.before is None or example.now is None:
            continue
        sides = (("before", example.before.key), ("now", example.now.key))
        if any(shown.get(place, Shown()).why == REMOVED for place in sides):
            shown |= dict.fromkeys(sides, Shown(why=REMOVED))
    return shown


def _rows(folder: Path, keys: list[str], removals: list[Removals]) -> Places:
    """Where a run's ledger says that pictures are, by key, and whether one of the runs removed them."""
    if not keys:
        return {}
    try:
        names = ledger.columns(folder)
        asked = ["key", "sha256", "kept", "shard", "location", "rule", "reason"]
        rows = ledger.read(folder, [*asked, *url_columns(names)], [("key", "in", keys)])
    except FileNotFoundError:
        return {}
    rows = rows.sort_values("kept", ascending=False, kind="stable").drop_duplicates("key")
    if "sha256" not in rows:
        rows["sha256"] = ""
    gone = pd.Series(False, index=rows.index)
    for removed in removals:
        gone |= removed.drops(rows).astype(bool)
    return rows.assign(removed=gone).set_index("key").to_dict("index")  # type: ignore[return-value]


def _of_side(
    folder: Path, states: dict[str, State], rows: Places, by_bytes: dict[str, Shown]
) -> Iterator[tuple[str, Shown]]:
    """The picture of each key; those with the same bytes are read once."""
    sources = _Sources(folder)
    in_tars = _in_tars(folder, states, rows)
    for key, state in states.items():
        row = rows.get(key, {})
        if row.get("removed"):
            yield key, Shown(why=REMOVED)
            continue
        known = by_bytes.get(state.sha256) if state.sha256 else None
        if known is None:
            data = in_tars.get(key)
            if data is None:
                data = sources.load(_text(row.get("location")), state.sha256)
            known = Shown(why=ABSENT) if data is None else _thumbnail(data)
            if state.sha256 and known.uri:
                by_bytes[state.sha256] = known
        yield key, known


def _thumbnail(data: bytes) -> Shown:
    try:
        return Shown(page.thumbnail(decode(data), THUMBNAIL_PX))
    except UnreadableImage as error:
        return Shown(why=page.clean(error.reason))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# Shards


def _in_tars(folder: Path, states: dict[str, State], rows: Places) -> dict[str, bytes]:
    """The bytes of the pictures that are in shards, each tar opened once."""
    asked: dict[str, set[str]] = {}
    for key in states:
        row = rows.get(key, {})
        if (shard := _text(row.get("shard"))) and not row["removed"]:
            asked.setdefault(shard, set()).add(key)
    found = {}
    for shard, keys in sorted(asked.items()):
        found |= _read(folder / shard, {key: states[key].sha256 for key in keys})
    return found


def _read(tar: Path, hashes: dict[str, str]) -> dict[str, bytes]:
    """Pictures of one tar by key; those that are not there, or not what the ledger says, are left out.

    Only the headers of other members are read.
    """
    images: dict[str, bytes] = {}
    said: dict[str, str] = {}
    try:
        with tarfile.open(tar) as opened:
            for member in opened:
                key, _, extension = member.name.partition(".")
                if key not in hashes or not member.isfile():
                    continue
                stream = opened.extractfile(member)
                content = b"" if stream is None else stream.read()
                if extension in IMAGE_EXTENSIONS:
                    images[key] = content
                elif extension == "json":
                    said[key] = _hash_in(content)
    except (OSError, tarfile.TarError):
        return {}
    return {
        key: data
        for key, data in images.items()
        if hashes[key] in ("", hashlib.sha256(data).hexdigest(), said.get(key))
    }


def _hash_in(content: bytes) -> str:
    """The sha256 of the source's file that a sample's json says; "" for none."""
    try:
        meta = json.loads(content)
    except ValueError:
        return ""
    return _text(meta.get("sha256")) if isinstance(meta, dict) else ""


# The source


class _Sources:
    """Reads pictures where a run's data set was, if they still have the bytes that were measured."""

    def __init__(self, folder: Path) -> None:
        found = read_config(folder / "config.yaml").get("dataset")
        self._dataset: dict[str, Any] = found if isinstance(found, dict) else {}
        self._opened: list[Load | None] = []

    def load(self, location: str, sha256: str) -> bytes | None:
        """The bytes with this hash; None where there are none."""
        if not (location and sha256):
            return None
        for key in _PLACES:
            place = self._dataset.get(key)
            data = _bytes(Path(place), location) if isinstance(place, str) else b""
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        load = self._open()
        try:
            data = load(location) if load else b""
        except (UnreadableImage, UserError, OSError, ValueError):
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _open(self) -> Load | None:
        """The source's own ``load``, where opening it takes no time; opened once."""
        if not self._opened:
            self._opened.append(_opened(self._dataset))
        return self._opened[0]


def _bytes(place: Path, location: str) -> bytes:
    try:
        return (place / location).read_bytes()
    except (OSError, ValueError):
        return b""


def _opened(dataset: dict[str, Any]) -> Load | None:
    from curate.readers import READERS  # which registers them all

    name = dataset.get("reader")
    if name not in _OPENED_AT_ONCE:
        return None
    try:
        schema = ConfigStore.instance().load(f"dataset/_{name}.yaml").node
        config = OmegaConf.to_object(OmegaConf.merge(schema, dataset))
        return READERS[str(name)](config).load
    except (HydraException, OmegaConfBaseException, UserError, OSError):
        return None  # of another version, or not here any more

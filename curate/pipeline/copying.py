"""``run.copy_to``: a copy of the finished curation in an object store, with the manifest last.

Copied are the shards and what lies beside them, the ledger, the funnel, the configuration and the report; not the
annotations, which only this machine needs. ``copied.json`` there says of each file how many bytes it has and their
SHA-256: what is there with both is not copied again. It is written before the first file is replaced, without those
that will be, and now and then, so that a copy that was interrupted goes on. Parts of a longer ledger that an earlier
copy brought are deleted, since whoever reads the folder would count their pairs; nothing else is that is not replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from time import monotonic
from typing import Any

from curate.pipeline.config import CurateConfig
from curate.run import remote, remote_files, tracking
from curate.run.checksums import FILE as CHECKSUMS
from curate.run.files import sha256_of
from curate.run.manifest import read_manifest
from curate.run.progress import Bar
from curate.run.schema import UserError

COPIED = "copied.json"
_MANIFEST = "manifest.json"
_LEDGER = "ledger/"
_LEFT_OUT = ("annotations", "tasks", "cache", "sample", tracking.FOLDER, CHECKSUMS, _MANIFEST)
_THREADS = 8
_BLOCK_BYTES = 4 * 2**20
_SAVE_S = 60.0
_MB = 10**6


def copy(config: CurateConfig, curate_dir: Path) -> str:
    """Bring the curation to ``run.copy_to``, as far as it is not there; a line that says so, "" if nothing is asked for.

    Raises:
        UserError: a file cannot be copied; what is there by then stays, and the next command goes on.
    """
    if config.run.copy_to is None:
        return ""
    url = config.run.copy_to.rstrip("/")
    try:
        there = _reached(url, curate_dir)
        known = read_manifest(curate_dir).sha256_of_shards()
        names = list(_files(curate_dir))
        wanted = {name: _entry(curate_dir / name, known.get(name)) for name in [*names, _MANIFEST]}
        changed = [name for name, entry in wanted.items() if there.get(name) != entry]
        stale = [n for n in there if n.startswith(("shards/", _LEDGER)) and n not in wanted]
        old = [n for n in stale if n.startswith(_LEDGER) and "sha256" in there[n]]  # copied by us
        if changed:
            _disown(url, {*changed, _MANIFEST}, there)
            _copy_all(curate_dir, url, [n for n in changed if n != _MANIFEST], wanted, there)
        for name in old:
            remote.remove(f"{url}/{name}")
            there.pop(name)
        if changed:
            _copy_file(curate_dir / _MANIFEST, f"{url}/{_MANIFEST}", wanted[_MANIFEST])
        if changed or old:
            _save(url, {**there, _MANIFEST: wanted[_MANIFEST]})
    except OSError as error:
        raise UserError(f"run.copy_to={url}: {error}. {_to_resume(curate_dir)}") from error
    lines = [f"copied: {len(changed):,} of {len(wanted):,} files to {url}; the others were there"]
    if old:
        lines.append(f"deleted there: {len(old):,} parts of an earlier curation's longer ledger")
    if shards := [name for name in stale if not name.startswith(_LEDGER)]:
        lines.append(
            f"note: {len(shards):,} files in {url}/shards are of an earlier curation, such as {min(shards)}; the "
            "manifest does not name them, and no shard is deleted there"
        )
    if strange := sorted({*stale} - {*shards, *old}):
        lines.append(
            f"note: {len(strange):,} files in {url}/ledger are not of this curation, such as {strange[0]}; whoever "
            f"reads the folder counts their pairs as well, and {COPIED} does not say that they are an earlier copy: "
            "delete them"
        )
    return "\n".join(lines)


def _files(curate_dir: Path) -> Iterator[str]:
    """What is copied, but for the manifest; in order."""
    for path in sorted(curate_dir.rglob("*")):
        parts = path.relative_to(curate_dir).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not path.is_symlink() and not hidden and parts[0] not in _LEFT_OUT:
            yield "/".join(parts)


def _entry(path: Path, sha256: str | None) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256 or sha256_of(path)}


def _reached(url: str, curate_dir: Path) -> dict[str, dict[str, Any]]:
    """As ``_there``; an address that is wrong, which the client says as a ``UserError``, leaves the curation finished."""
    try:
        return _there(url)
    except UserError as error:
        raise UserError(f"{error}. {_to_resume(curate_dir)}") from error


def _to_resume(curate_dir: Path) -> str:
    """What to say where the curation is complete and its copy is not."""
    return (
        f"The curation in {curate_dir} is finished, and only its copy is not: type the same command again, which goes "
        "on with it, or run.copy_to=null"
    )


def _there(url: str) -> dict[str, dict[str, Any]]:
    """What ``copied.json`` says of files that are there with that size; of others their size alone."""
    sizes = {path.url: path.stat().st_size for path in remote_files.found("run.copy_to", url)}
    listed: dict[str, dict[str, Any]] = {}
    if f"{url}/{COPIED}" in sizes:
        with remote_files.RemotePath(f"{url}/{COPIED}").open() as stream:
            data = stream.read()
        try:
            listed = json.loads(data)["files"]
        except (ValueError, KeyError, TypeError):
            listed = {}  # everything is copied again
    found: dict[str, dict[str, Any]] = {}
    for place, size in sizes.items():
        name = place.removeprefix(f"{url}/")
        entry = listed.get(name, {})
        found[name] = entry if entry.get("bytes") == size else {"bytes": size}
    found.pop(COPIED, None)
    return found


def _disown(url: str, changed: set[str], there: dict[str, dict[str, Any]]) -> None:
    """Take from ``there``, and from the list in the store, the files that are about to change, and delete the manifest.

    The old ones would say of new files that they are the old.
    """
    remote.remove(f"{url}/{_MANIFEST}")
    for name in changed:
        there.pop(name, None)
    _save(url, there)


def _copy_all(
    curate_dir: Path,
    url: str,
    names: list[str],
    wanted: dict[str, dict[str, Any]],
    there: dict[str, dict[str, Any]],
) -> None:
    """Copy files that ``there`` does not hold, several at a time; it is brought up to date, also if one fails."""
    total = sum(wanted[name]["bytes"] for name in names)
    saved, done, pool = monotonic(), 0, ThreadPoolExecutor(_THREADS)
    bar = Bar(total=-(-total // _MB), unit="MB", desc="copying", leave=False)
    futures = {
        pool.submit(_copy_file, curate_dir / name, f"{url}/{name}", wanted[name]): name
        for name in names
    }
    try:
        for future in as_completed(futures):
            future.result()
            name = futures[future]
            there[name] = wanted[name]
            before, done = done, done + wanted[name]["bytes"]
            bar.update(done // _MB - before // _MB)
            if monotonic() - saved > _SAVE_S:
                _save(url, there)
                saved = monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
        for future, name in futures.items():
            if not future.cancelled() and future.exception() is None:
                there[name] = wanted[name]
        bar.close()
        if names and there:
            _save(url, there)


def _copy_file(path: Path, url: str, entry: dict[str, Any]) -> None:
    """Copy one file; nothing is there by its name if that fails.

    Raises:
        UserError: its bytes are not those of its entry.
        OSError: it cannot be read, or not written there.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream, remote.written(url) as copied:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            copied.write(block)
        if digest.hexdigest() != entry["sha256"]:
            raise UserError(
                f"{path} is damaged or was changed: its sha256 is not the manifest's, so it is not copied to {url}. "
                "To see what else is, type: python -m curate.verify RUN"
            )


def _save(url: str, there: dict[str, dict[str, Any]]) -> None:
    known = {name: entry for name, entry in sorted(there.items()) if "sha256" in entry}
    with remote.written(f"{url}/{COPIED}") as stream:
        stream.write(json.dumps({"files": known}, indent=1, sort_keys=True).encode())

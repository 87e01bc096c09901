"""The previous run of the same name: a note on other data, and the question before a training loses its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.pipeline.config import CurateConfig
from curate.run import joined, ledger, provenance
from curate.run.files import read_json
from curate.run.ledger_table import LedgerTable
from curate.run.manifest import Manifest, digest_now, old_manifest
from curate.run.schema import UserError

# Keys of ``dataset`` that do not name the data.
_NOT_DATA = {"limit", "sample", "index", "spool", "layout", "download"}
_DECIDING = ("dataset", "clip", "heads", "filters", "split", "shards")
_FREE = {  # change no shard
    *("clip.device", "clip.batch_size"),
    *("dataset.index", "dataset.spool", "dataset.layout", "dataset.download"),
}
_STORED = ("caption", "sha256", "format", "split", "duplicate_group", "clip_similarity")
_SHOWN = 3  # settings in one message

# Pictures of both ledgers by key: a caption at the same place with the same file is the same.
_CHANGED = """
    SELECT count(*) FILTER (NOT old), count(*) FILTER (NOT new), count(*) FILTER (old AND new AND differ) FROM (
        SELECT
            coalesce(before.key, ledger.key) AS name,
            bool_or(before.key IS NOT NULL) AS old,
            bool_or(ledger.key IS NOT NULL) AS new,
            bool_or(
                before.key IS NULL OR ledger.key IS NULL
                OR before.caption::VARCHAR IS DISTINCT FROM ledger.caption::VARCHAR
                OR before.sha256::VARCHAR IS DISTINCT FROM ledger.sha256::VARCHAR
            ) AS differ
        FROM before FULL JOIN ledger ON before.key = ledger.key AND before.caption_index = ledger.caption_index
        GROUP BY name
    )
"""


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


def trainings(run_dir: Path) -> list[Path]:
    """The folders of the trainings that stand on a run's shards: its own, those with ``data.run`` and ``data.runs``.

    One whose shards were replaced or taken away since then has nothing more to lose, and is left out.
    """
    found, manifest = [run_dir / "finetune"], old_manifest(run_dir / "curate")
    among_others: list[Path] = []
    for path in sorted(run_dir.parent.glob("*/finetune/config.yaml")):
        data = provenance.read_config(path).get("data")
        if isinstance(data, dict) and run_dir.name in (data.get("runs") or {}):
            if _stands_with_others(path.parent, manifest):
                among_others.append(path.parent)
            continue
        is_named = isinstance(data, dict) and data.get("run") == run_dir.name
        # A damaged configuration names nothing, but the checkpoints know their shards.
        if is_named or (manifest and _shards_of(path.parent) == manifest.digest()):
            found.append(path.parent)
    own = [folder for folder in dict.fromkeys(found) if _stands(folder, manifest)]
    return [*own, *among_others]


def _stands_with_others(training: Path, manifest: Manifest | None) -> bool:
    """The same as :func:`_stands` for one on the shards of several runs."""
    if not any((training / "checkpoints").glob("step-*")):
        return False
    place = training.with_name(joined.FOLDER)
    together = old_manifest(place)
    if manifest is None or together is None:
        return True
    return digest_now(place, together) == _shards_of(training)


def _stands(training: Path, manifest: Manifest | None) -> bool:
    """Whether a folder holds checkpoints, of a training on these shards as far as is known."""
    if not any((training / "checkpoints").glob("step-*")):
        return False
    return manifest is None or _shards_of(training) in (None, manifest.digest())


def _shards_of(training: Path) -> str | None:
    """The digest of the shards that the last checkpoint was trained on; None where it is not known."""
    checkpoints = sorted((training / "checkpoints").glob("step-*"))
    state = read_json(checkpoints[-1] / "state.json") if checkpoints else None
    return (state or {}).get("identity", {}).get("shards")


class NotReplaced(UserError):
    """A training stands on the shards, and nobody said that they may be replaced."""


class Question:
    """Whether the shards that a training stands on may be replaced; ``run.replace=true`` says yes.

    Made before the run's ``config.yaml`` is written, which has the settings of these shards.
    """

    def __init__(self, curate_dir: Path, config: CurateConfig) -> None:
        self._curate_dir = curate_dir
        self._trainings = trainings(config.run.folder)
        self._answered = config.run.replace
        self._files = list(_named_files(config))
        before = provenance.read_config(curate_dir / "config.yaml") if self._trainings else {}
        self._settings = list(_changed(before, provenance.redacted(asdict(config))))

    @property
    def stands(self) -> bool:
        """Whether there is a training, and no answer."""
        return bool(self._trainings) and not self._answered

    def note(self) -> str:
        """Said before anything is measured: settings have changed, so the question may come; else ""."""
        if not (self.stands and self._settings):
            return ""
        return (
            f"note: {self._trainings[0]} was trained on this run's shards, and {self._in_words()}; if that "
            "changes them, this stops before it does. run.replace=true replaces them"
        )

    def ask_if_rows_changed(self, now: LedgerTable) -> None:
        """Ask, unless the ledger that is about to be written keeps the same pairs as the previous one.

        Raises:
            NotReplaced: as ``ask``.
        """
        if not self.stands:
            return
        before = self._previous_ledger(now)
        if before is None or _stores_others(before, now):
            self.ask(now)

    def ask(self, now: LedgerTable) -> None:
        """Ask because a shard would change.

        Raises:
            NotReplaced: there is a training on the shards, and the user has not said yes; says what changed.
        """
        if not self.stands:
            return
        more = f" and {len(self._trainings) - 1} more" if len(self._trainings) > 1 else ""
        why = self._in_words() if self._settings else self._input_in_words(now)
        raise NotReplaced(
            f"{self._trainings[0]}{more} was trained on the shards in {self._curate_dir}, which this "
            f"curation would replace: {why}. It could then neither resume nor be judged. Type another "
            "run.name=NAME to keep it, or run.replace=true as well to replace the shards"
        )

    def outcome(self, old: Manifest, new: Manifest) -> str:
        """A note that the shards of a training were replaced, as the user asked for; else ""."""
        if not self._trainings or old.shards == new.shards:
            return ""
        return (
            f"note: {self._trainings[0]} was trained on the previous shards: it can neither resume nor be "
            "judged with the new ones. To restore them, curate with the previous settings"
        )

    def _in_words(self) -> str:
        shown = ", ".join(self._settings[:_SHOWN])
        more = len(self._settings) - _SHOWN
        return f"{shown}{f' and {more} more settings' if more > 0 else ''} changed"

    def _previous_ledger(self, now: LedgerTable) -> LedgerTable | None:
        """Beside the new one, as the view ``before``."""
        try:
            return now.beside("before", ledger.parts(self._curate_dir))
        except (FileNotFoundError, UserError):
            return None

    def _input_in_words(self, now: LedgerTable) -> str:
        if self._previous_ledger(now) is None:
            return "the previous ledger, which would tell what changed, is missing or damaged"
        new, gone, changed = now.tuples(_CHANGED)[0]
        counts = {"new": new, "gone": gone, "changed": changed}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if said:
            return f"the input changed (pictures: {said})"
        files = "".join(f"{key} has other rows by now, or " for key in self._files)
        return f"settings and input are the same, but {files}this version decides or packs in another way"


def _named_files(config: CurateConfig) -> Iterator[str]:
    """Keys of files that decide what is in the shards, and may change under their names."""
    if config.split.held_out is not None:
        yield "split.held_out"
    if isinstance(config.filters.caption.blocklist, str):
        yield "filters.caption.blocklist"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """``key (old -> new)`` for each setting that decides what is in the shards; unknown ones are left out."""
    for group in (name for name in _DECIDING if name in before):
        old, new = dict(_flat(before[group], group)), dict(_flat(now[group], group))
        for key in sorted(old.keys() & new.keys() - _FREE):
            if old[key] != new[key]:
                yield f"{key} ({_short(old[key])} -> {_short(new[key])})"
        if group in ("heads", "filters"):  # whose entries the user names
            yield from sorted(f"{key} (new)" for key in new.keys() - old.keys() if new[key])
            yield from sorted(f"{key} (gone)" for key in old.keys() - new.keys() if old[key])


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}")
    else:
        yield key, list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stores_others(before: LedgerTable, now: LedgerTable) -> bool:
    """Whether what of the kept pairs goes into the shards differs between two ledgers."""
    columns = [[name for name in _STORED if name in table] for table in (before, now)]
    if columns[0] != columns[1]:
        return True
    differ = " OR ".join(
        f"{_as_stored(before, name)} IS DISTINCT FROM {_as_stored(now, name)}"
        for name in columns[0]
    )
    kept = "FROM {} WHERE kept"
    return bool(
        now.value(
            f"SELECT count(*) FROM (SELECT * {kept.format('before')}) AS before "
            f"FULL JOIN (SELECT * {kept.format('ledger')}) AS ledger "
            "ON before.key = ledger.key AND before.caption_index = ledger.caption_index "
            f"WHERE before.key IS NULL OR ledger.key IS NULL OR {differ}"
        )
    )


def _as_stored(table: LedgerTable, name: str) -> str:
    """A column of ``_STORED`` as it is compared: six digits of a similarity, texts."""
    column = f"{table.name}.{table.column(name)}"
    if name == "clip_similarity":
        return f"round({column}::DOUBLE, 6)"
    return f"{column}::VARCHAR"

"""Which model was given which picture: every training below a folder, also of no series, and deleted runs of series.

What a training was given is read, in this order, from its own ``trained_on.parquet``; from the tables beside the
shards, while these are what it was trained on; from the series' table, where the run's folder is gone. Where all of
that is missing, the ledger says which pictures may have been in it, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import checksums, ledger, named_pictures
from curate.run.files import read_json, sha256_once
from curate.run.finished import RECORD
from curate.run.removals import REASON, read_removals
from curate.run.schema import UserError
from finetune import trained_on
from workflows.retraining import lineage, run_files, seen
from workflows.retraining.series import Series, all_of

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "not known"
"""Stands for a side of the split: the picture was in the curation, which was changed after the training."""

COLUMNS = ("key", "sha256", "source", "split", "shard", "run", "captions")
_HELD_OUT = ("val", "test")


@dataclass(frozen=True, eq=False)
class Model:
    """A trained run.

    Attributes:
        root: the folder of all runs. name: of the run.
        copy: its ``lineage.json`` as the series keeps it, if it has one.
        series: that it is of; None where no retraining made it.
    """

    root: Path
    name: str
    copy: dict[str, Any] = field(default_factory=dict)
    series: Series | None = None

    @property
    def run_dir(self) -> Path:
        """Of the run, which may be deleted."""
        return self.root / self.name

    @property
    def is_there(self) -> bool:
        """Whether the run's training still is."""
        return (self.run_dir / "finetune").is_dir()

    @property
    def outcome(self) -> str:
        """How its retraining ended; "" of one that has not, or of a run of no series."""
        record = read_json(self.run_dir / RECORD) or {}
        return str(record.get("outcome") or self.copy.get("outcome", ""))

    @property
    def identity(self) -> dict[str, Any]:
        """What decided its losses."""
        return run_files.identity(self.run_dir) or self.copy.get("training", {}).get("identity", {})

    @property
    def checkpoints(self) -> dict[str, int]:
        """Samples seen by each checkpoint that is or was there, the earliest first."""
        there = {n: s["samples_seen"] for n, s in run_files.checkpoints(self.run_dir).items()}
        listed = self.copy.get("training", {}).get("checkpoints", {})
        return there or {name: known["samples_seen"] for name, known in listed.items()}

    @property
    def export_names(self) -> list[str]:
        """The folders of its exports in the run; nothing is hashed for them."""
        there = [
            path.relative_to(self.run_dir).as_posix() for path in run_files.exports(self.run_dir)
        ]
        return there or list(self.copy.get("exports", {}))

    @cached_property
    def exports(self) -> dict[str, dict[str, str]]:
        """The sha256 of every file of each export as it was written, by the export's folder in the run.

        Gigabytes are hashed only where neither the series nor the training's own list has an export.
        """
        known = self.copy.get("exports", {})
        listed = (checksums.read(self.run_dir / "finetune") or checksums.Listed()).files
        found = {}
        for name in self.export_names:
            inside = name.partition("/")[2] + "/"
            own = {
                path.removeprefix(inside): str(entry["sha256"])
                for path, entry in listed.items()
                if path.startswith(inside)
            }
            found[name] = known.get(name) or own or run_files.files_of(self.run_dir / name)
        return found

    @property
    def starts(self) -> list[str]:
        """What it may have begun with, as its record and its configuration name it: runs and folders."""
        record = read_json(self.run_dir / RECORD) or {}
        training = self.copy.get("training", {})
        config = run_files.training_config(self.run_dir) or training.get("config", {})
        method, model = (config.get(name) or {} for name in ("method", "model"))
        named = [
            record.get("start_from"),
            training.get("start_from"),
            method.get("init"),
            model.get("path"),
        ]
        return list(dict.fromkeys(text for text in named if text))

    @cached_property
    def given(self) -> tuple[pd.DataFrame, str]:
        """What it was trained on and what was held out.

        Returns:
            A row for each picture with ``COLUMNS``, text but for ``captions``, and where that is from: "" for a
            table of its own, else a sentence that says why it is not certain.
        """
        import pandas as pd

        shards = self.identity.get("shards")
        own = trained_on.read(self.run_dir / "finetune")
        if own and own[1] == shards:
            return _named(own[0].to_pandas(), self.name), ""
        manifests = run_files.manifests(self.run_dir)
        if len(manifests) == 1:
            ((folder, manifest),) = manifests.items()
            if manifest.digest() == shards:
                rows = trained_on.table(folder, manifest, "", folder.parent.name)
                return rows.to_pandas(), ""
        if self.series is not None:
            spans = seen.of(self.series, int(self.name.rpartition("-")[2]))
            if spans is not None:
                return spans.assign(shard="", run="").reindex(columns=COLUMNS), ""
        rows = [_perhaps(folder) for folder in run_files.curate_dirs(self.run_dir)]
        found = [each for each in rows if each is not None]
        empty = pd.DataFrame(columns=COLUMNS)
        return pd.concat([empty, *found], ignore_index=True) if found else empty, _UNCERTAIN


_UNCERTAIN = "the curation was changed after the training, which is of a version that did not write down what it was given"


def _named(rows: pd.DataFrame, run: str) -> pd.DataFrame:
    """A training's own table, in which its own curation has no name, and shards of several lead out of a folder."""
    shard = rows["shard"].str.replace(r"^\.\./\.\./[^/]+/curate/", "", regex=True)
    return rows.assign(run=rows["run"].where(rows["run"] != "", run), shard=shard)


def _perhaps(curate_dir: Path) -> pd.DataFrame | None:
    """The pictures that a curation keeps, or kept before a removal, each of which may have been trained on."""
    try:
        rows = ledger.read(curate_dir, ["key", "sha256", "source", "kept", "rule"])
    except FileNotFoundError:
        return None
    removed = rows["rule"] == REASON if "rule" in rows else False
    rows = rows[rows["kept"] | removed]
    counts = rows.groupby(["key", "sha256", "source"], sort=False).size().rename("captions")
    return counts.reset_index().assign(split=UNKNOWN, shard="", run=curate_dir.parent.name)


def models(root: Path) -> dict[str, Model]:
    """Every trained run below ``root`` by name, and the judged ones of series that were deleted.

    Raises:
        UserError: a file of a series is damaged.
    """
    found: dict[str, Model] = {}
    for series in all_of(root):
        for name, copy in lineage.copies(series).items():
            found[name] = Model(root, name, copy, series)
    for path in sorted(root.glob("*/finetune/checkpoints")):
        name = path.parents[1].name
        if name not in found and run_files.checkpoints(path.parents[1]):
            found[name] = Model(root, name)
    return dict(sorted(found.items()))


def parents(model: Model, known: dict[str, Model]) -> list[str]:
    """The runs that a model began with, the nearest first, and last a folder of none of them, if it began with one."""
    chain: list[str] = []
    current: Model | None = model
    while current is not None:
        start = _start(current, known)
        if not start or start in chain or start == model.name:
            break
        chain.append(start)
        current = known.get(start)
    return chain


def _start(model: Model, known: dict[str, Model]) -> str:
    """What a model began with, by the bytes of the weights where the training noted these, else by name or folder."""
    by_name = next(filter(None, (_resolved(text, model, known) for text in model.starts)), "")
    digest = model.identity.get("init")
    if not digest:
        return by_name
    alike = [name for name in _holding({digest}, known) if name != model.name]
    if by_name in alike:
        return by_name
    return alike[0] if alike else by_name or f"weights with the sha256 {digest}"


def _resolved(text: str, model: Model, known: dict[str, Model]) -> str:
    """The run that a name or folder stands for; of an export that is of none of them its folder; "" for a base model."""
    if text in known and text != model.name:
        return text
    folder = Path(text).expanduser()
    inside = _inside(folder, model.root)
    if inside in known and inside != model.name:
        return inside
    if (folder / "checkpoint.json").is_file():  # an export, of a run that is elsewhere
        found = of_export(folder, known)
        return found[0] if len(found) == 1 else text
    return ""


def _inside(folder: Path, root: Path) -> str:
    """The name of the run below ``root`` that a folder is in; "" for none."""
    path, root = folder.resolve(), root.resolve()
    return path.relative_to(root).parts[0] if path.is_relative_to(root) and path != root else ""


def of_export(path: Path, known: dict[str, Model]) -> list[str]:
    """The runs that have an export with all the weights of a folder or a file, by the files' bytes."""
    files = [path] if path.is_file() else list(run_files.weights_of(path))
    return _holding({sha256_once(file) for file in files}, known)


def _holding(digests: set[str], known: dict[str, Model]) -> list[str]:
    """The runs that have an export with weights of these digests among its files; none for no digests."""
    return [
        name
        for name, model in known.items()
        if digests and any(digests <= _weights(files) for files in model.exports.values())
    ]


def _weights(files: dict[str, str]) -> set[str]:
    return {sha256 for name, sha256 in files.items() if name.endswith(run_files.WEIGHTS)}


# From a picture to the models


@dataclass(frozen=True, slots=True)
class Use:
    """What one model has to do with a picture.

    Attributes:
        run: the model's. outcome: of its retraining, "" for a run of no series.
        side: ``train``, ``val``, ``test``, ``UNKNOWN``, or "" where it was not given the picture.
        key, shard: under which, and where, it was given it.
        through: the models that it began with, directly or not, and that were trained on the picture.
        checkpoints: those that were made after the picture was first drawn from the data.
        exports: those of such checkpoints.
        is_there: whether the run's folder is.
        note: why this is not certain; "" where it is.
    """

    run: str
    outcome: str
    side: str
    key: str
    shard: str
    through: tuple[str, ...]
    checkpoints: tuple[str, ...]
    exports: tuple[str, ...]
    is_there: bool
    note: str

    @property
    def saw_it(self) -> bool:
        """Whether the picture is, or may be, in its weights."""
        return self.side in ("train", UNKNOWN) or bool(self.through)

    @property
    def contradicts(self) -> bool:
        """Whether it was judged by the picture although a model that it began with was trained on it."""
        return self.side in _HELD_OUT and bool(self.through)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture by its identities.

    Attributes:
        keys, sha256: all under which any training or ledger below the root has it.
        removed_from: runs whose curation lists it as removed.
        dropped: why curations did not keep it, and which, by their runs; removals are not among them.
    """

    keys: tuple[str, ...]
    sha256: tuple[str, ...]
    removed_from: tuple[str, ...]
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


def pictures_of(text: str, root: Path, known: dict[str, Model]) -> list[Picture]:
    """The pictures that a text names, see ``named_pictures``: several where runs use one key for different files.

    Raises:
        UserError: no training and no ledger has it; says what was looked at.
    """
    import pandas as pd

    curations = sorted(path.parent for path in root.glob("*/curate/ledger"))

    @cache
    def rows(columns: tuple[str, ...]) -> pd.DataFrame:
        tables = [model.given[0][[*named_pictures.IDENTITY]] for model in known.values()]
        tables += [ledger.read(folder, columns) for folder in curations]
        return pd.concat([pd.DataFrame(columns=[*columns]), *tables]).drop_duplicates()

    named = named_pictures.find(text, rows)
    if named.empty:
        raise UserError(
            f"no training below {root} was given a picture with the key, sha256 or file {text!r}, and no ledger has it; "
            f"looked at {len(known)} trainings and {len(curations)} ledgers. Name another folder of runs with --root"
        )
    all_of = rows(named_pictures.IDENTITY)
    found = {digest: {*all_of.loc[all_of["sha256"] == digest, "key"]} for digest in named["sha256"]}
    files = [(digest, keys) for digest, keys in sorted(found.items()) if digest]
    read = {key for _, keys in files for key in keys}
    unread = {*named.loc[named["sha256"] == "", "key"]} - read  # of these the key alone is known
    files += [("", {key}) for key in sorted(unread)]
    return [_picture(digest, sorted(keys), curations) for digest, keys in files]


def _picture(digest: str, keys: list[str], curations: Sequence[Path]) -> Picture:
    """One file, under whatever keys."""
    listed = {folder.parent.name: read_removals(folder) for folder in curations}
    removed = [
        run for run, of in listed.items() if of.keys & {*keys} or (digest and digest in of.sha256)
    ]
    dropped: dict[str, tuple[str, ...]] = {}
    for folder in curations:
        for reason in _why_dropped(folder, digest, keys):
            dropped[reason] = (*dropped.get(reason, ()), folder.parent.name)
    return Picture(tuple(keys), (digest,) if digest else (), tuple(removed), dropped)


def _why_dropped(curate_dir: Path, digest: str, keys: list[str]) -> list[str]:
    """Why a curation kept none of a picture's captions; nothing where it kept one, removed it or does not have it."""
    columns = ["key", "kept", "rule", "reason", "duplicate_of"]
    same = [[("key", "in", keys), ("sha256", "==", "")]]  # dropped before its bytes were read
    same += [[("sha256", "==", digest)]] if digest else []
    rows = ledger.read(curate_dir, columns, same)
    if rows["kept"].any() or (rows["reason"] == REASON).any():
        return []
    found = [
        ledger.why(row) + (f", a copy of {row['duplicate_of']}" if row.get("duplicate_of") else "")
        for _, row in rows.iterrows()
    ]
    return list(dict.fromkeys(found))


def uses(picture: Picture, known: dict[str, Model]) -> list[Use]:
    """What every model has to do with a picture, by name; those that have nothing to do with it are left out."""
    rows = {name: _rows(model, picture) for name, model in known.items()}
    trained = {
        n for n, found in rows.items() if any(r["split"] in ("train", UNKNOWN) for r in found)
    }
    result = []
    for name, model in known.items():
        through = tuple(parent for parent in parents(model, known) if parent in trained)
        if rows[name] or through:
            result.append(_use(model, rows[name], through))
    return result


def _rows(model: Model, picture: Picture) -> list[dict[Any, Any]]:
    given = model.given[0]
    same = (
        given["sha256"].isin(picture.sha256) if picture.sha256 else given["key"].isin(picture.keys)
    )
    return given[same].to_dict("records")


def _use(model: Model, rows: Sequence[dict[Any, Any]], through: tuple[str, ...]) -> Use:
    """Of several rows of one file, which a curation without its rule on copies may keep, training counts first."""
    order = ("train", UNKNOWN, *_HELD_OUT)
    first = min(rows, key=lambda row: order.index(row["split"]), default=None)
    side = first["split"] if first else ""
    made = tuple(model.checkpoints)
    if first and side == "train" and not through:
        made = tuple(_after(model, first["key"]))
    elif not through and side not in ("train", UNKNOWN):
        made = ()
    saw = side in ("train", UNKNOWN) or bool(through)
    return Use(
        run=model.name,
        outcome=model.outcome,
        side=side,
        key=first["key"] if first else "",
        shard=f"{first['run']}/curate/{first['shard']}" if first and first["shard"] else "",
        through=through,
        checkpoints=made,
        exports=tuple(_exports_of(model, made)) if saw else (),
        is_there=model.is_there,
        note=model.given[1] if first else "",
    )


def _exports_of(model: Model, made: Sequence[str]) -> Iterator[str]:
    """The exports of some checkpoints, and those of which nothing says which checkpoint they are of."""
    for name in model.export_names:
        source = read_json(model.run_dir / name / "checkpoint.json") or {}
        if "step" not in source or f"step-{source['step']:08d}" in made:
            yield name


_SAME_ORDER = "hashed keys"
"""How earlier versions noted the same order of pictures; only their noise was another."""


def _after(model: Model, key: str) -> Iterator[str]:
    """The checkpoints made after a training picture was first drawn; all where the order is not known."""
    from finetune.doctor import ORDER

    position = -1
    identity, given = model.identity, model.given[0]
    in_buckets = identity.get("buckets.enabled", False)  # whose order is another
    known = identity.get("order") in (ORDER, _SAME_ORDER) and not in_buckets
    if known and given["run"].nunique() == 1:
        position = _first_draw(
            given.loc[given["split"] == "train", "key"], key, identity["train.seed"]
        )
    for name, samples_seen in model.checkpoints.items():
        if _of_data(samples_seen, identity) > position:
            yield name


def _of_data(samples_seen: int, identity: dict[str, Any]) -> int:
    """How many samples were pictures of the data, and not such that the base drew (``replay.share``)."""
    from finetune.config.retention import ReplayConfig

    if not (share := identity.get("replay.share", 0.0)):
        return samples_seen
    size = identity["optim.batch_size"]  # each batch has as many of them
    return samples_seen // size * (size - ReplayConfig(share).samples(size))


def _first_draw(keys: pd.Series, key: str, seed: int) -> int:
    """The place of a picture in the first pass over the data, as ``finetune.data`` draws it."""
    import numpy as np

    from curate.pack.buckets import key_hashes
    from finetune.data import epoch_order

    order = np.argsort(key_hashes(keys), kind="stable")
    ordered = keys.to_numpy()[order]
    (place,) = np.flatnonzero(ordered == key)
    (position,) = np.flatnonzero(epoch_order(seed, 0, len(keys)) == place)
    return int(position)


# From a model to the pictures


def pairs(model: Model, known: dict[str, Model]) -> tuple[pd.DataFrame, list[str]]:
    """Every pair that is, or may be, in a model's weights, and those that judged it.

    Returns:
        A row for each pair: ``key, sha256, caption, source, split, shard, run`` (the curation's), ``model``, the
        one that was given it, which may be one that this model began with, and ``removed``: whether any curation
        below the root lists its file as removed. Of a picture whose captions no ledger has any more ``caption`` is missing. Then
        sentences on what is not certain.
    """
    import pandas as pd

    chain = [model, *(known[name] for name in parents(model, known) if name in known)]
    tables, notes = [], []
    for each in chain:
        given, note = each.given
        if each is not model:
            given = given[given["split"].isin(["train", UNKNOWN])]
        tables.append(_with_captions(each, given).assign(model=each.name))
        notes += [f"{each.name}: {note}"] if note else []
    unknown = [name for name in parents(model, known) if name not in known]
    notes += [f"it began with {name}, of which nothing is known here" for name in unknown]
    found = pd.concat(tables, ignore_index=True)
    removed = {
        digest for path in model.root.glob("*/curate") for digest in read_removals(path).sha256
    }
    found["removed"] = found["sha256"].isin(removed)
    columns = ["key", "sha256", "caption", "source", "split", "shard", "run", "model", "removed"]
    return found[columns], notes


def _with_captions(model: Model, given: pd.DataFrame) -> pd.DataFrame:
    """A row for each caption that the ledgers have of the pictures; one without for the others."""
    import pandas as pd

    runs = [name for name in given["run"].unique() if name]
    folders = {model.root / name / "curate" for name in runs} or {
        *run_files.curate_dirs(model.run_dir)
    }
    found = [_captions(folder) for folder in sorted(folders)]
    known = pd.concat([_no_captions(), *found], ignore_index=True)
    return given.merge(known, on=["key", "sha256"], how="left")


def _no_captions() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["key", "sha256", "caption"])


def _captions(curate_dir: Path) -> pd.DataFrame:
    """The captions that a curation keeps, or kept before a removal."""
    try:
        rows = ledger.read(curate_dir, ["key", "sha256", "caption", "kept", "rule"])
    except FileNotFoundError:
        return _no_captions()
    removed = rows["rule"] == REASON if "rule" in rows else rows["kept"] & False
    return rows.loc[rows["kept"] | removed, ["key", "sha256", "caption"]]

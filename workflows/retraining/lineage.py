"""``lineage.json`` of a judged run: what its model was made from, by digests, and what it was found to be worth.

A copy in ``<series>-series/lineage/`` and the pictures' rows in ``trained_on.parquet`` beside it (see ``seen``) stay
when the run's folder is deleted. The command ``python -m workflows.lineage`` reads them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from curate import credits as credit
from curate.run import checksums, parquet
from curate.run.files import read_json, sha256_of, write_certified
from curate.run.manifest import Manifest, read_funnel
from curate.run.schema import UserError
from finetune import trained_on
from workflows.retraining import run_files, seen
from workflows.retraining.record import Record
from workflows.retraining.series import Series

VERSION = 1
FILE = "lineage.json"
FOLDER = "lineage"  # of the copies, in the series' own


def write(series: Series, record: Record) -> Path:
    """Write the file of a run, its copy, and the pictures that the run was given; returns the file's path.

    Raises:
        UserError: a file that it is made from is damaged.
    """
    run_dir = series.run_dir(record.run)
    content = of(run_dir, record)
    given = trained_on.read(run_dir / "finetune")
    if given is not None:
        seen.add(series, record.number, given[0])
    write_certified(series.folder / FOLDER / f"{record.run}.json", content)
    write_certified(run_dir / FILE, content)
    return run_dir / FILE


def of(run_dir: Path, record: Record) -> dict[str, Any]:
    """The content of the file; what a stage did not leave is null or empty in it.

    ``data``
        for each curation, by run: ``shards``, the digest that checkpoints keep, and each one's path, split,
        samples and sha256; ``ledger``, a digest; ``fingerprint`` of scorer, filters and split; the ``funnel``;
        ``licences``, pictures by licence; of several, the ``weight`` that its pictures were drawn with.
    ``given``
        pictures and pairs by side of the split, and the sha256 of their table ``finetune/trained_on.parquet``.
    ``inputs``
        the digest of all that the retraining was made from, and the changes that started it.
    ``training``
        ``start_from``, the run it began with; its configuration; what decided its losses; its checkpoints, with the
        samples seen and the sha256 of the weights.
    ``evaluation``
        ``compared_with``, verdict, gate, its rules' lines, all metrics.
    ``exports``
        sha256 of every file of each export, by the export's folder in the run.
    """
    weights = run_files.weights(run_dir)
    return {
        "version": VERSION,
        "run": record.run,
        "series": record.series,
        "number": record.number,
        "started": record.started,
        "outcome": record.outcome,
        "sentence": record.sentence,
        "data": {
            name: _data(folder, m) | ({"weight": weights[name]} if name in weights else {})
            for folder, m in run_files.manifests(run_dir).items()
            for name in (folder.parent.name,)
        },
        "given": _given(run_dir),
        "inputs": {
            "digest": record.inputs,
            "changes": [change.sentence() for change in record.changes],
        },
        "training": _training(run_dir, record),
        "evaluation": _evaluation(run_dir, record),
        "kept": record.kept,
        "export": record.export,
        "exports": {
            folder.relative_to(run_dir).as_posix(): run_files.files_of(folder)
            for folder in run_files.exports(run_dir)
        },
        "code": record.provenance,
    }


def copies(series: Series) -> dict[str, dict[str, Any]]:
    """The files of all judged runs of a series, by run, deleted ones too.

    Raises:
        UserError: one is damaged.
    """
    found = {}
    for path in sorted((series.folder / FOLDER).glob("*.json")):
        content = read_json(path, sealed=True)
        if content is None:
            raise UserError(
                f"{path} is damaged; fetch it from a backup, or copy {path.stem}/{FILE} there"
            )
        found[path.stem] = content
    return found


def _data(curate_dir: Path, manifest: Manifest) -> dict[str, Any]:
    funnel = read_funnel(curate_dir)
    return {
        "shards": {
            "digest": manifest.digest(),
            "files": [
                {name: getattr(shard, name) for name in ("path", "split", "samples", "sha256")}
                for shard in manifest.shards
            ],
        },
        "ledger": _ledger_digest(curate_dir),
        "fingerprint": manifest.fingerprint,
        "funnel": {
            name: funnel[name]
            for name in ("pairs_in", "kept", "dropped", "unreadable", "samples", "rules", "cut")
            if name in funnel
        },
        "licences": licences(curate_dir),
    }


def licences(curate_dir: Path) -> dict[str, int]:
    """Kept pictures by licence, the most frequent first; empty where the ledger keeps none."""
    try:
        return credit.licences(credit.credited(curate_dir))
    except (FileNotFoundError, UserError):
        return {}


def _ledger_digest(curate_dir: Path) -> str | None:
    """Of the checksums of its parts, in order."""
    parts = sorted((curate_dir / "ledger").glob("part-*.parquet"))
    digests = [f"{path.name} {parquet.checksum_in(path) or sha256_of(path)}" for path in parts]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if parts else None


def _given(run_dir: Path) -> dict[str, Any] | None:
    found = trained_on.read(run_dir / "finetune")
    if found is None:
        return None
    table, shards = found
    pictures, pairs = Counter[str](), Counter[str]()
    for split, captions in zip(*(table[n].to_pylist() for n in ("split", "captions")), strict=True):
        pictures[split] += 1
        pairs[split] += captions
    path = run_dir / "finetune" / trained_on.FILE
    return {
        "shards": shards,
        "pictures": dict(pictures),
        "pairs": dict(pairs),
        "table": {"path": f"finetune/{path.name}", "sha256": parquet.checksum_in(path)},
    }


def _training(run_dir: Path, record: Record) -> dict[str, Any]:
    config = run_files.training_config(run_dir)
    config.pop("provenance", None)
    states = run_files.checkpoints(run_dir)
    folder = run_dir / "finetune" / "checkpoints"
    return {
        "start_from": record.start_from,
        "config": config,
        "identity": run_files.identity(run_dir),
        "checkpoints": {
            name: {
                "samples_seen": state["samples_seen"],
                "weights": _weights(folder / name),
            }
            for name, state in states.items()
        },
    }


def _weights(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of the weights and of their average, as the checkpoint's own list has them."""
    listed = checksums.read(checkpoint) or checksums.Listed()
    names = ("weights.safetensors", "ema.safetensors")
    return {name: listed.files[name]["sha256"] for name in names if name in listed.files}


def _evaluation(run_dir: Path, record: Record) -> dict[str, Any] | None:
    report = read_json(run_dir / "evaluate" / "report.json")
    if report is None:
        return None
    names = ("verdict", "gate", "checks", "metrics")
    return {
        "compared_with": record.compared_with,
        **{name: report[name] for name in names if name in report},
    }

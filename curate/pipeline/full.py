"""The plan of ``python -m curate``: annotate, decide, shard, report; the same command resumes it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from curate.annotate import stage as annotate
from curate.annotate.spec import Request
from curate.clip import scorer as clip
from curate.decide.stage import Verdicts, judge
from curate.filters import blocklist
from curate.filters.columns import unheard_of
from curate.filters.config import FiltersConfig
from curate.filters.similarity import NAME as SIMILARITY
from curate.measures.decode import UnreadableImage, decode, encode, is_plain
from curate.pack import shards
from curate.pack.samples import Samples
from curate.pipeline import notes
from curate.pipeline import previous_run as replaced
from curate.pipeline.config import CurateConfig
from curate.readers.sample import Candidate
from curate.readers.source import Source
from curate.report import curation as report
from curate.report import figures as funnel
from curate.run import ledger, memory, provenance
from curate.run.cli import UserError
from curate.run.files import locked, remove_parts, sha256_of, write_json
from curate.run.removals import removed
from curate.run.removals import write as write_removed
from curate.run.threads import in_order

_FIRST = 1000  # images whose columns are looked at before anything is scored


def run(config: CurateConfig, source: Source) -> None:
    """Curate ``source`` into ``<run.root>/<run.name>/curate`` and print the funnel.

    Under a launcher of several processes the first does the work and the others return.

    Raises:
        UserError: nothing is kept, or too much is unreadable.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return
    curate_dir = config.run.folder / "curate"
    with locked(curate_dir):
        _run(config, source, curate_dir)


def _run(config: CurateConfig, source: Source, curate_dir: Path) -> None:
    _say(replaced.other_data(curate_dir, config))
    remove_parts(curate_dir)
    listed = removed(curate_dir)
    scorer = cache(lambda: clip.load_clip(config.clip))
    measured = annotate.annotate(
        _watched(source, config),
        curate_dir / "annotations",
        config.annotate,
        Request.of(config),
        scorer,
    )
    if scorer.cache_info().currsize:
        if scorer().images.items:
            _say(f"clip: {scorer().speed()}")
        scorer.cache_clear()
        memory.give_back()  # what follows needs it, not the model
    verdicts = judge(measured.parts, config, listed)
    ledger.check_complete(verdicts.ledger, measured.pairs)
    figures = funnel.summarise(verdicts, [*source.notes, *notes.of(config, verdicts)])
    _say("\n".join(funnel.lines(figures)))
    if not figures["kept"]:
        raise UserError(_nothing_kept(figures))
    _write_results(curate_dir, config, source, verdicts, figures)
    if listed.pending:  # this curation has left out what a removal was interrupted in
        write_removed(curate_dir, replace(listed, pending=False))
    _say(f"report: {curate_dir / 'report.html'}\nshards: {curate_dir / 'shards'}")


def _watched(source: Source, config: CurateConfig) -> Source:
    """The same, with a warning once its first images show that a rule looks at what is not there.

    Later ones may have it, so that it is no error yet; but hours of scoring lie before that.
    """

    def candidates() -> Iterator[Candidate]:
        stream = source.candidates()
        first = list(islice(stream, _FIRST))
        offered = {name for candidate in first for name in candidate.columns}
        missing = unheard_of(config.filters.columns, offered, config.heads) if first else []
        for name in missing:
            _say(
                f"warning: filters.columns.{name}: none of the first {len(first)} images has a "
                f"column {name!r}; of their own they have: {', '.join(sorted(offered)) or 'none'}"
            )
        yield from first
        yield from stream

    return replace(source, candidates=candidates)


def _write_results(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    verdicts: Verdicts,
    figures: dict[str, Any],
) -> None:
    """What was asked for, shards, ledger, funnel, report and, last, the manifest."""
    provenance.write_config(curate_dir / "config.yaml", config)
    before = replaced.old_manifest(curate_dir)
    plans, manifest = _write_shards(curate_dir, config, source, verdicts, figures)
    shard_of = {key: planned.path for planned in plans for key in planned.keys}
    table = verdicts.ledger
    table["shard"] = table["key"].where(table["kept"]).map(shard_of).fillna("")
    ledger.write(curate_dir / "ledger", table)
    write_json(curate_dir / "funnel.json", figures)
    report.write(curate_dir / "report.html", config, verdicts, figures, source.load)
    shards.write_manifest(curate_dir, manifest)
    _say(replaced.training(curate_dir, before, manifest))


def _write_shards(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    verdicts: Verdicts,
    figures: dict[str, Any],
) -> tuple[list[shards.Plan], shards.Manifest]:
    """Write the shards that are not there yet and remove those of other configurations."""
    kept = Samples(verdicts.ledger)
    extension = _extension(config.shards.image_format, kept.formats)
    plans = shards.plan(kept.sides(), config.shards.max_samples)
    settings = f"{extension} {config.shards.jpeg_quality} plain"
    wanted = [shards.digest(kept.rows(planned.keys), settings) for planned in plans]
    written = [
        shards.is_written(curate_dir, planned, digest)
        for planned, digest in zip(plans, wanted, strict=True)
    ]
    known = [info for info in written if info]
    replaced.retire(curate_dir, _manifest(config, figures, extension, known))
    image_of = _image_source(source, verdicts.ledger, extension, config.shards.jpeg_quality)
    found = []
    done = sum(info.samples for info in known)
    workers = config.annotate.workers
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(kept), initial=done, desc="shards", unit="img") as bar,
    ):
        for planned, info in zip(plans, written, strict=True):
            if info is None:
                rows = kept.rows(planned.keys)
                with closing(_images(pool, image_of, rows, extension, 2 * workers)) as images:
                    info = shards.write_shard(
                        curate_dir, planned, rows, settings, extension, images, bar.update
                    )
            found.append(info)
    shards.remove_stale(curate_dir, plans)
    return plans, _manifest(config, figures, extension, found)


def _manifest(
    config: CurateConfig,
    figures: dict[str, Any],
    extension: str,
    found: list[shards.ShardInfo],
) -> shards.Manifest:
    counts = ("pairs_in", ledger.KEPT, ledger.DROPPED, ledger.UNREADABLE, "samples")
    return shards.Manifest(
        shards=tuple(found),
        totals={name: figures[name] for name in counts},
        fingerprint={
            "scorer": clip.fingerprint(config.clip),
            "filters": _digest([asdict(config.filters), _blocked(config.filters)]),
            "split": _digest(asdict(config.split)),
            "heads": _digest(
                {name: sha256_of(Path(head.path)) for name, head in config.heads.items()}
            ),
        },
        image_format=extension,
    )


def _extension(image_format: str, formats: set[str]) -> str:
    if image_format != "auto":
        return image_format
    return "png" if formats == {"PNG"} else "jpg"


def _image_source(
    source: Source, table: pd.DataFrame, extension: str, jpeg_quality: int
) -> Callable[[dict[str, Any]], bytes]:
    """The bytes to store for a row: the source's own where any reader sees the same, else encoded anew.

    What is returned may be called in several threads; it raises when the image has changed since.
    """
    kept = table[table["kept"]].drop_duplicates("key")
    location_of = kept.set_index("key")["location"]

    def image_of(row: dict[str, Any]) -> bytes:
        try:
            data = source.load(location_of[row["key"]])
        except UnreadableImage as error:
            raise UserError(
                f"image {row['key']} is gone ({error.reason}); the same command again measures what "
                "is there"
            ) from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise UserError(
                f"image {row['key']} has changed since it was measured; the same command again "
                "measures what is new"
            )
        if shards.EXTENSIONS.get(row["format"]) == extension and is_plain(data):
            return data
        return encode(decode(data), extension, jpeg_quality)

    return image_of


def _images(
    pool: ThreadPoolExecutor,
    image_of: Callable[[dict[str, Any]], bytes],
    rows: list[dict[str, Any]],
    extension: str,
    ahead: int,
) -> Generator[bytes]:
    """The bytes to store for each row; in the threads of ``pool``, ``ahead`` of use, if formats differ."""
    if all(shards.EXTENSIONS.get(row["format"]) == extension for row in rows):
        # Handing plain copies over would take longer than reading them.
        yield from map(image_of, rows)
    else:
        yield from in_order(pool, image_of, rows, ahead)


def _nothing_kept(figures: dict[str, Any]) -> str:
    took = {rule["rule"]: rule["dropped"] for rule in figures["rules"] if rule["dropped"]}
    reasons = ", ".join(f"{why} ({count})" for why, count in [*figures["reasons"].items()][:3])
    said = f"no pair of {figures['pairs_in']} is kept: {reasons}"
    if ledger.UNREADABLE in took and len(took) == 1:
        keys = "such as dataset.image_column=NAME for a table"
        return f"{said}; type the keys of dataset= that lead to the images, {keys}"
    if SIMILARITY in took:
        cut = funnel.describe_cut(figures["cut"])
        said += f" (cut: {cut}; filters.clip_similarity.fraction=0.5 keeps the better half)"
    return f"{said}; loosen the rule, or type filters=everything to see the scores"


def _blocked(filters: FiltersConfig) -> list[str]:
    """The words of a blocklist, whose file may change under its name."""
    listed = filters.caption.blocklist
    return blocklist.read(listed) if listed else []


def _digest(value: Any) -> str:
    known = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(known, digest_size=8).hexdigest()


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

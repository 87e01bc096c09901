"""Nothing is kept: write the ledger and the report all the same, and say what to look at and type."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.measures.unreadable import MISSING_FILE
from curate.pipeline.config import CurateConfig
from curate.readers.config import DatasetConfig
from curate.readers.source import Source
from curate.report import curation, figures
from curate.run import ledger, provenance
from curate.run.config import NOTHING_KEPT
from curate.run.ledger_table import LedgerTable
from curate.run.manifest import write_funnel
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 2  # names that were looked for
_LONGEST = 200  # characters of one
_NAMES = ("location", "file_name", "url")  # columns that name a picture, the most exact first


class NothingKept(UserError):
    """No pair is kept; says why, and what to type."""


def report(
    config: CurateConfig, source: Source, verdicts: Verdicts, funnel: dict[str, Any]
) -> NoReturn:
    """Write what became of the pairs, and say it.

    Raises:
        NothingKept: always.
    """
    written = write(config, source, verdicts, funnel)
    raise NothingKept(message(config, verdicts.ledger, funnel, written))


def write(config: CurateConfig, source: Source, verdicts: Verdicts, funnel: dict[str, Any]) -> Path:
    """Write ledger, funnel and report, and return their folder.

    The shards of a finished curation stay, with the manifest and the ledger that describe them; what
    became of the pairs is then in a folder ``NOTHING_KEPT`` of the run, which has the same layout.
    """
    curate_dir = config.run.folder / "curate"
    remove(config)
    if (curate_dir / "manifest.json").is_file():
        curate_dir = config.run.folder / NOTHING_KEPT / "curate"
        provenance.write_config(curate_dir / "config.yaml", config)
    ledger.copy(verdicts.ledger.parts, curate_dir / "ledger")
    write_funnel(curate_dir, funnel)
    curation.write(curate_dir, asdict(config), verdicts, funnel, source.load)
    return curate_dir


def remove(config: CurateConfig) -> None:
    """Delete what an earlier curation that kept nothing left beside a finished one."""
    shutil.rmtree(config.run.folder / NOTHING_KEPT, ignore_errors=True)


def message(
    config: CurateConfig, table: LedgerTable, funnel: dict[str, Any], curate_dir: Path
) -> str:
    """One paragraph: why nothing is kept, what was looked for, and what to type.

    Args:
        config: of the run; its reader's own keys are named and no others.
        table: the ledger.
        funnel: its figures.
        curate_dir: where they were written.
    """
    reasons = ", ".join(f"{why} ({count})" for why, count in [*funnel["reasons"].items()][:3])
    run = shlex.quote(str(curate_dir.parent))
    return "; ".join(
        [
            f"no pair of {funnel['pairs_in']} is kept: {reasons}",
            *_advice(config, table, funnel),
            f"{curate_dir / 'report.html'} shows all pairs, and of one of them tells: python -m "
            f"curate.explain {run} {table.rows([0])['key'].iloc[0]}",
            *_kept_shards(config, curate_dir),
        ]
    )


def _advice(config: CurateConfig, table: LedgerTable, funnel: dict[str, Any]) -> Iterator[str]:
    dropped = {rule["rule"] for rule in funnel["rules"] if rule["dropped"]}
    if dropped <= {ledger.UNREADABLE, "no_caption"}:
        yield from _looked_for(config.dataset, table)
        if any(each["asked_again"] for each in funnel.get("not_fetched", ())):
            run = shlex.quote(str(config.run.folder))
            yield f"to ask again for what may pass, type: python -m curate.retry {run}"
        if "no_caption" in dropped:
            yield _where_captions_are(config.dataset)
    elif SIMILARITY in dropped:
        cut = figures.describe_cut(funnel["cut"])
        yield f"the cut: {cut}; filters.clip_similarity.fraction=0.5 keeps the better half"
    else:
        yield "loosen the rule, or type filters=everything to see the scores"


def _looked_for(dataset: DatasetConfig, table: LedgerTable) -> Iterator[str]:
    """Some of the names that were looked for, if any, where, and how to say where they are."""
    reason = f"{ledger.UNREADABLE}: {MISSING_FILE}"
    missing = table.tuples(
        f"SELECT min(row) AS first FROM ledger WHERE reason = ? GROUP BY image ORDER BY first LIMIT {SHOWN + 1}",
        reason,
    )
    if not missing:
        return
    images = table.rows([row for (row,) in missing[:SHOWN]])
    names = [repr(next(_names(row), row["key"]))[:_LONGEST] for _, row in images.iterrows()]
    more = ", ..." if len(missing) > len(names) else ""
    said = f"looked for {', '.join(names)}{more}"
    if dataset.pictures_key is None:
        yield said
        return
    key = f"dataset.{dataset.pictures_key}"
    other = "..." if dataset.pictures_key == "path" else "FOLDER"
    place = getattr(dataset, dataset.pictures_key)
    yield f"{said} in {key}={place}; say where they are: {key}={other}"


def _names(row: pd.Series) -> Iterator[str]:
    """What a row says of its picture that looks like a name; the hub's locations are numbers."""
    for column in _NAMES:
        name = row.get(column)
        if isinstance(name, str) and name and not name.isdigit():
            yield name


def _where_captions_are(dataset: DatasetConfig) -> str:
    key = dataset.captions_key
    said = f"conf/dataset/{dataset.reader}.yaml says where captions are looked for"
    if dataset.layout:
        said = f"what is read: {dataset.layout} ({said})"
    if key:
        said = f"{said}; name their column: dataset.{key}=..."
    return f'{said}. Where there are none, dataset.caption="a photo of ..." is the caption of all'


def _kept_shards(config: CurateConfig, curate_dir: Path) -> Iterator[str]:
    if curate_dir.parent.name == NOTHING_KEPT:
        yield f"the shards of the earlier curation in {config.run.folder / 'curate'} stay as they are"

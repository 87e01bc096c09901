"""The command ``python -m curate.retry``: ask again for pictures whose failure may pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from curate.fetch import stage
from curate.fetch.answer import STATES, STORED, TRANSIENT
from curate.fetch.config import FetchConfig
from curate.readers.tables import TableConfig
from curate.run import cli, folder
from curate.run.next_command import named
from curate.run.provenance import curate_command, read_config
from curate.run.schema import UserError

_DESCRIPTION = """\
Ask again for the pictures of a run's table whose failure may pass: no answer in time, no connection, too many
requests, an error of the server. What was fetched, and what cannot be otherwise (404, forbidden, no picture), is
not asked for. The shards concerned are written again, each replaced only when the new one is complete; after an
interruption, the same command continues. The curation itself is left as it is: its own command, which is
printed at the end, takes in what came."""


def main() -> None:
    """Ask again, and say what has changed."""
    parser = folder.parser("retry", _DESCRIPTION)
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="fetch.KEY=VALUE",
        help="other settings of the fetch than the run's, such as fetch.retries=5 fetch.timeout_s=60",
    )
    arguments = parser.parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    dataset, fetch = configuration(curate_dir, arguments.settings)
    before = stage.states_in(dataset)
    if not may_pass(before) and not stage.is_asking_again(dataset):
        print("\n".join(_nothing(curate_dir, before)))
        return
    now = Counter(stage.run(dataset, fetch, again=True))
    print("\n".join(_changed(curate_dir, before, now)))


def configuration(curate_dir: Path, settings: list[str]) -> tuple[TableConfig, FetchConfig]:
    """The table of a run and how it is fetched, with other ``settings``, as typed.

    Raises:
        UserError: the run has not fetched, or a setting is none of ``fetch.*``.
    """
    known = read_config(curate_dir / "config.yaml")
    dataset, fetch = known.get("dataset"), known.get("fetch")
    run = named(curate_dir.parent)
    if not isinstance(dataset, dict) or not isinstance(fetch, dict) or not fetch.get("enabled"):
        raise UserError(
            f"{curate_dir.parent} has not fetched anything (fetch.enabled is not true in its config.yaml); "
            f"to fetch, type: {curate_command(curate_dir.parent)} fetch.enabled=true fetch.contact=ADDRESS"
        )
    wrong = [text for text in settings if not text.startswith("fetch.") or "=" not in text]
    if wrong:
        raise UserError(
            f"{wrong[0]!r} is no setting of the fetch; type, for instance: python -m curate.retry {run} "
            "fetch.retries=5"
        )
    typed: Any = OmegaConf.from_dotlist(settings)
    table: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TableConfig), dataset))
    merged = OmegaConf.merge(OmegaConf.structured(FetchConfig), fetch, typed.get("fetch") or {})
    asked: Any = OmegaConf.to_object(merged)
    if asked.rows_per_shard != fetch["rows_per_shard"]:
        raise UserError(
            f"fetch.rows_per_shard={asked.rows_per_shard} would cut other shards than those that are "
            f"there; leave it out"
        )
    return table, asked


def may_pass(states: Mapping[str, int]) -> int:
    """How many of the rows have a failure that may pass."""
    return sum(states.get(state, 0) for state in TRANSIENT)


def _nothing(curate_dir: Path, before: Counter[str]) -> Iterator[str]:
    if not before:
        yield f"nothing is fetched yet; type: {curate_command(curate_dir.parent)}"
        return
    failed = before.total() - before[STORED]
    yield f"{before[STORED]:,} pictures are there, and {failed:,} failed; none of these failures may pass"
    yield from _lines(before, before)


def _changed(curate_dir: Path, before: Counter[str], now: Counter[str]) -> Iterator[str]:
    came = now[STORED] - before[STORED]
    yield f"asked again for {may_pass(before):,}: {came:,} pictures came, {may_pass(now):,} may still pass"
    yield from _lines(before, now)
    if came:
        yield f"to take them in, type: {curate_command(curate_dir.parent)}"
    elif may_pass(now):
        yield f"to ask once more, later, type: python -m curate.retry {named(curate_dir.parent)}"


def _lines(before: Counter[str], now: Counter[str]) -> Iterator[str]:
    """How many rows are in each state, and were before."""
    for state in (each for each in STATES if before[each] or now[each]):
        change = f"  was {before[state]:,}" if before[state] != now[state] else ""
        yield f"  {state:20}{now[state]:>12,}  {STATES[state]}{change}"


if __name__ == "__main__":
    cli.run(main)

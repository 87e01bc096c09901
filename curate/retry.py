"""The command ``python -m curate.retry``: ask again for pictures whose failure may pass."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from curate.fetch import plan, stage
from curate.fetch.answer import STATES, STORED, TRANSIENT
from curate.fetch.config import FetchConfig
from curate.fetch.settings import asked_again, check_files, may_change, settings_of
from curate.readers.tables import TableConfig
from curate.run import cli, folder, overrides
from curate.run.keys import SCHEMAS, keys
from curate.run.next_command import named
from curate.run.provenance import curate_command, read_config
from curate.run.refusals import unknown_key, wrong_value
from curate.run.schema import UserError

_DESCRIPTION = """\
Ask again for the pictures of a run's table whose failure may pass: no answer in time, no connection, too many
requests, an error of the server; and for what a setting forbade that is typed wider now, such as fetch.max_mb. What was
fetched, and what cannot be otherwise (404, forbidden, no picture), is not asked for. The shards concerned are
written again, each replaced only when the new one is complete; after an interruption, the same command
continues. The curation itself is left as it is: its own command, which is printed at the end, takes in what
came."""


_NAMES = [each.name for each in fields(FetchConfig)]
_LISTED = ", ".join(f"fetch.{name}" for name in _NAMES if name not in ("enabled", "rows_per_shard"))
_SEE = "See python -m curate.retry --help for the keys"


def main() -> None:
    """Ask again, and say what has changed."""
    parser = folder.parser("retry", _DESCRIPTION)
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="fetch.KEY=VALUE",
        help=f"other settings of the fetch than the run's, such as fetch.retries=5: {_LISTED}",
    )
    arguments = parser.parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    dataset, fetch = configuration(curate_dir, arguments.settings)
    check_files(fetch)
    before, used = stage.states_in(dataset), plan.used(Path(dataset.images_dir or ""))
    settings = plan.with_present(used, settings_of(fetch))
    is_nothing = not may_pass(before) and not may_change(settings, before)
    if is_nothing and not stage.is_asking_again(dataset):
        print("\n".join(_nothing(curate_dir, before)))
        return
    again = {*TRANSIENT} | (asked_again(used[-1], settings[-1]) - {"opted_out"} if used else set())
    asked = sum(before[state] for state in again)
    now = Counter(stage.run(dataset, fetch, again=True))
    lasting = [text for text in arguments.settings if overrides.key_of(text)[6:] in settings[-1]]
    command = " ".join([curate_command(curate_dir.parent), *map(shlex.quote, lasting)])
    print("\n".join(_changed(curate_dir, before, now, asked, command)))


def configuration(curate_dir: Path, settings: list[str]) -> tuple[TableConfig, FetchConfig]:
    """The table of a run and how it is fetched, with other ``settings``, as typed.

    Raises:
        UserError: the run has not fetched, or a setting is none of ``fetch.*``.
    """
    known = read_config(curate_dir / "config.yaml")
    dataset, fetch = known.get("dataset"), known.get("fetch")
    run = named(curate_dir.parent)
    fetch = fetch if isinstance(fetch, dict) else {}
    if not isinstance(dataset, dict) or not (fetch.get("enabled") or _was_fetched(dataset)):
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
    table: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TableConfig), dataset))
    # A later curation of the same pictures may have fetched nothing.
    contact = fetch.get("contact") or _typed_contact(settings)
    if contact is None:
        raise UserError(
            f"the last curation of {curate_dir.parent} did not fetch, so that nobody knows your address for the "
            f"User-Agent; type: python -m curate.retry {run} fetch.contact=ADDRESS"
        )
    merged = OmegaConf.merge(
        OmegaConf.structured(FetchConfig), {**fetch, "enabled": True, "contact": contact}
    )
    for text in settings:
        merged = _with(merged, text, settings)
    asked: Any = OmegaConf.to_object(merged)
    if not asked.enabled:
        raise UserError(
            f"fetch.enabled=false would ask for nothing; leave it out, and type: python -m curate.retry {run}"
        )
    if asked.rows_per_shard != fetch.get("rows_per_shard", asked.rows_per_shard):
        raise UserError(
            f"fetch.rows_per_shard={asked.rows_per_shard} would cut other shards than those that are "
            f"there; leave it out"
        )
    return table, asked


def _with(config: Any, text: str, settings: list[str]) -> Any:
    """The configuration with one setting, as typed.

    Raises:
        UserError: there is no such key, or its value is of another type; says what to type.
    """
    import_module(SCHEMAS["curate"])  # which registers the types of all keys
    key, value = overrides.key_of(text), overrides.value_of(text)
    name = key.removeprefix("fetch.")
    if name not in _NAMES:
        raise UserError(f"{unknown_key(text, 'curate', _NAMES, settings)}. {_SEE}")
    try:
        (prepared,) = overrides.prepare([text])
        parsed = OverridesParser.create().parse_override(prepared.lstrip("+")).value()
        return OmegaConf.merge(config, {name: parsed})
    except (HydraException, OmegaConfBaseException) as error:
        said = wrong_value(keys("curate")[key], value, "curate")
        raise UserError(f"{said.rstrip('.')}. {_SEE}") from error


def _was_fetched(dataset: Mapping[str, Any]) -> bool:
    """Whether the folder of a table's pictures was fetched into."""
    return (Path(dataset.get("images_dir") or os.devnull) / plan.FILE).is_file()


def _typed_contact(settings: list[str]) -> str | None:
    found = [
        overrides.value_of(text) for text in settings if overrides.key_of(text) == "fetch.contact"
    ]
    return found[-1] if found else None


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


def _changed(
    curate_dir: Path, before: Counter[str], now: Counter[str], asked: int, command: str
) -> Iterator[str]:
    came = now[STORED] - before[STORED]
    yield f"asked again for {asked:,}: {max(came, 0):,} pictures came, {may_pass(now):,} may still pass"
    if gone := now["opted_out"] + now["changed"] - before["opted_out"] - before["changed"]:
        yield f"by the lists and hashes of now, {max(gone, 0):,} more are not kept"
    yield from _lines(before, now)
    if came:
        yield f"to take them in, type: {command}"
    elif may_pass(now):
        yield f"to ask once more, later, type: python -m curate.retry {named(curate_dir.parent)}"


def _lines(before: Counter[str], now: Counter[str]) -> Iterator[str]:
    """How many rows are in each state, and were before."""
    for state in (each for each in STATES if before[each] or now[each]):
        change = f"  was {before[state]:,}" if before[state] != now[state] else ""
        yield f"  {state:20}{now[state]:>12,}  {STATES[state]}{change}"


if __name__ == "__main__":
    cli.run(main)

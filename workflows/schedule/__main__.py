"""``python -m workflows.schedule start|stop``: Dagster in the background, its page for this machine only."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from curate.run import cli
from curate.run.schema import UserError
from workflows.schedule import command, server, settings


def main() -> None:
    """Start or stop what ``server`` does."""
    parser = argparse.ArgumentParser(prog="python -m workflows.schedule", description=HELP)
    parser.add_argument("do", choices=("start", "stop"))
    parser.add_argument("--home", type=Path, default=Path("runs/.dagster"))
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    with cli.exit_codes():
        if given.do == "stop":
            print(server.stop(given.home))
            return
        if importlib.util.find_spec("dagster") is None:
            raise UserError(
                "Dagster is not installed; type: make schedule, or pip install -e '.[schedule]'"
            )
        try:
            scheduled = settings.read()
        except ValueError as error:
            raise UserError(str(error)) from error
        print(
            f"retrains {', '.join(scheduled.experiments)}: {scheduled.cron} ({scheduled.timezone})"
        )
        refuse_wrong(scheduled)
        print(server.start(given.home, given.port))


def refuse_wrong(scheduled: settings.Settings) -> None:
    """Find now what would otherwise be found at the first Sunday.

    Raises:
        UserError: Dagster does not take the settings, or the command does not.
    """
    import dagster  # pyright: ignore[reportMissingImports]

    try:
        importlib.import_module("workflows.schedule.definitions")
    except dagster.DagsterError as error:
        raise UserError(f"Dagster refuses the settings: {error}") from error
    for experiment in scheduled.experiments:
        with redirect_stdout(StringIO()):
            reply = command.retrain(scheduled, experiment, "--why")
        if reply.code in command.FINAL:
            raise UserError(reply.sentence)
        print(f"{experiment}: {reply.sentence}")


HELP = """Start or stop Dagster, which starts retrainings. It reads from the environment what to retrain and when:
DARKROOM_EXPERIMENT, DARKROOM_CRON, DARKROOM_TIMEZONE, DARKROOM_LOOK_S, DARKROOM_ARGUMENTS, DARKROOM_COMMAND."""


if __name__ == "__main__":
    sys.exit(main())

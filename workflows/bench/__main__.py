"""The command `python -m workflows.bench [NAME ...]`; without a name it runs all benchmarks of speed and memory."""

from __future__ import annotations

import sys
from importlib import import_module

from curate.run import cli

BENCHMARKS = (
    "scoring",
    "growing",
    "deciding",
    "sharding",
    "fetching",
    "engines",
    "memory",
    "drawing",
    "retraining",
    "training",
)
LARGE = ("judging", "near_copies")  # tens of minutes, and 5 to 40 GB of disk: only where named
VERDICTS = "verdicts"  # takes hours and arguments of its own, so it runs only where it is named


def main(names: list[str]) -> int:
    """Run the benchmarks named on the command line."""
    with cli.exit_codes():
        return _run(names)


def _run(names: list[str]) -> int:
    if names and names[0] == VERDICTS:
        from workflows.bench import verdicts

        return verdicts.run(names[1:])
    unknown = set(names) - {*BENCHMARKS, *LARGE}
    if unknown:
        sys.stderr.write(
            f"error: no benchmark {min(unknown)!r}; choose from: {' '.join((*BENCHMARKS, *LARGE, VERDICTS))}\n"
        )
        return 2
    for name in names or BENCHMARKS:
        import_module(f"workflows.bench.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

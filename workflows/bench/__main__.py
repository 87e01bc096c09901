"""The command `python -m workflows.bench [NAME ...]`; without a name it runs all benchmarks."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = ("scoring", "deciding", "sharding", "memory", "drawing")


def main(names: list[str]) -> int:
    """Run the benchmarks named on the command line."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.stderr.write(
            f"error: no benchmark {min(unknown)!r}; choose from: {' '.join(BENCHMARKS)}\n"
        )
        return 2
    for name in names or BENCHMARKS:
        import_module(f"workflows.bench.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

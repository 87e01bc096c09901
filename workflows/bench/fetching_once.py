"""One fetch of a table in a process of its own, measured: `python -m workflows.bench.fetching_once`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SMALL_BYTES = 1_000

SHORT_SHARD = 1_000
"""So that the last shard, which nothing is fetched beside, is a small part of the time, as of a long fetch."""


@dataclass(frozen=True)
class Measured:
    """One fetch.

    Attributes:
        stored: pictures.
        seconds: from the client's start to the last shard on the disk.
        cpu_s: of the fetching process in this time.
        peak_mb: of its memory, in 2^20 bytes, from the start of the process.
    """

    stored: int
    seconds: float
    cpu_s: float
    peak_mb: float


def measured(
    count: int, connections: int, port: int = 0, rows_per_shard: int = SHORT_SHARD
) -> Measured:
    """Fetch so many different addresses into a folder that is deleted then.

    Args:
        count: addresses.
        connections: ``fetch.connections``.
        port: of a server on loopback; 0 for a client that answers by itself, without a network.
        rows_per_shard: ``fetch.rows_per_shard``.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = (folder, *map(str, (count, connections, port, rows_per_shard)))
        command = [sys.executable, "-m", __name__, *given]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = Measured(**json.loads(done.stdout.splitlines()[-1]))
    if found.stored != count:
        raise RuntimeError(f"{found.stored} of {count} pictures were stored\n{done.stderr}")
    return found


def _main(folder: Path, count: int, connections: int, port: int, rows_per_shard: int) -> None:
    from curate.fetch import stage
    from curate.fetch.answer import STORED, Answer, Way
    from curate.fetch.client import Client
    from curate.fetch.config import FetchConfig
    from curate.readers.tables import TableConfig
    from workflows.bench.picture_server import picture

    began: list[float] = []

    class Noting(Client):
        """Notes when it starts."""

        async def __aenter__(self) -> Self:
            began.extend((time.perf_counter(), time.process_time()))
            return await super().__aenter__()

    body = picture(SMALL_BYTES)

    class Answering(Noting):
        """Asks nobody."""

        async def ask(self, url: str, way: Way) -> Answer:
            await asyncio.sleep(0)
            return Answer(STORED, body=body, extension="jpg", width=8, height=8, http_status=200)

    config = FetchConfig(
        enabled=True,
        contact="bench@example.org",
        connections=connections,
        host_connections=connections,
        host_rate=None,
        rows_per_shard=rows_per_shard,
        allow_networks=["127.0.0.0/8"],
    )
    path = folder / "table.tsv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("caption\turl\n")
        stream.writelines(f"picture {n}\thttp://127.0.0.1:{port}/{n}.jpg\n" for n in range(count))
    table = TableConfig(path=str(path), images_dir=str(folder / "pictures"))
    states = stage.run(table, config, new_client=Noting if port else Answering)
    said = {
        "stored": states.get(STORED, 0),
        "seconds": time.perf_counter() - began[0],
        "cpu_s": time.process_time() - began[1],
        "peak_mb": _peak_mb(),
    }
    sys.stdout.write(json.dumps(said) + "\n")


def _peak_mb() -> float:
    """Not ru_maxrss: a child process starts with its parent's peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *map(int, sys.argv[2:6]))

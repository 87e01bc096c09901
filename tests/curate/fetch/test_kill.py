"""A fetch that is killed again and again ends as one that was not, and repeats almost nothing."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from curate.fetch import stage
from curate.fetch.config import FetchConfig
from curate.fetch.journal import places
from curate.fetch.shard_files import ShardFiles
from curate.readers.tables import TableConfig
from tests.curate.fetch.addresses_to_ask import path_of
from tests.curate.fetch.misbehaving import in_thread

COUNT, ROWS, CONNECTIONS, LATENCY_S = 300, 64, 8, 0.03
WAYS = ("/status/404/{n}", "/html/{n}", "/truncated/{n}", "/to-private/{n}", "/hops/1/{n}")
PROGRAM = """
import json, sys
from curate.fetch import stage
from curate.fetch.config import FetchConfig
from curate.readers.tables import TableConfig
dataset, fetch = json.loads(sys.argv[1])
stage.run(TableConfig(**dataset), FetchConfig(**fetch))
"""


def write_table(path, base):
    """Every seventh address is bad in one of the ways whose end does not depend on the time."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(COUNT):
            way = WAYS[n // 7 % len(WAYS)] if n % 7 == 0 else "/ok/{n}.jpg"
            file.write(f"{base}{way.format(n=n)}\ta caption, {n}\n")
    return path


def settings(table, folder):
    dataset = {"name": "web", "reader": "table", "path": str(table), "quotes": False}
    dataset |= {"columns": ["url", "caption"], "images_dir": str(folder)}
    fetch = {"enabled": True, "contact": "test@example.org", "host_rate": None}
    fetch |= {"allow_networks": ["127.0.0.0/8"], "rows_per_shard": ROWS}
    return dataset, fetch | {"connections": CONNECTIONS, "host_connections": CONNECTIONS}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def answered(folder):
    """The addresses with an answer on disk, and of the begun shards only what has no damage."""
    import pyarrow.parquet as pq

    found = {
        place.meta["url"] for path in folder.glob(".fetch/*.journal") for place in places(path)
    }
    for path in folder.glob("*_stats.json"):
        files = ShardFiles(folder, int(path.name[:6]))
        if files.finished():
            found |= set(pq.read_table(files.table, columns=["url"])["url"].to_pylist())
    return found


def start(arguments, log):
    environment = {**os.environ, "PYTHONPATH": str(Path(stage.__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, json.dumps(arguments)]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def kill_at_random(process, server, most, rng):
    """Let it ask for some addresses, ``most`` or fewer, then kill it; False if it had ended by itself."""
    give_up, until = time.monotonic() + 60, sum(server.asked.values()) + rng.randint(3, most)
    while process.poll() is None and sum(server.asked.values()) < until:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    time.sleep(rng.uniform(0, LATENCY_S))  # into the middle of answers
    was_running = process.poll() is None
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait(30)
    return was_running


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_it_ends_as_one_that_was_not(tmp_path, kills):
    rng = random.Random(kills)
    with in_thread(latency_s=LATENCY_S) as server, (tmp_path / "log").open("wb") as log:
        table = write_table(tmp_path / "t.tsv", server.base)
        dataset, fetch = settings(table, tmp_path / "killed")
        killed = 0
        kept: dict[str, int] = {}  # addresses with an answer, and how often they had been asked for
        for _ in range(kills):
            process = start((dataset, fetch), log)
            killed += kill_at_random(process, server, COUNT // (2 * kills), rng)
            for url in answered(tmp_path / "killed"):
                kept.setdefault(url, server.asked[path_of(url)])
        assert killed == kills
        assert kept
        assert start((dataset, fetch), log).wait(60) == 0, (tmp_path / "log").read_text()
        assert {url: server.asked[path_of(url)] for url in kept} == kept
        urls = [line.split("\t")[0] for line in table.read_text().splitlines()]
        asked = [server.asked[path_of(url)] for url in urls]  # what they redirect to is not counted
        assert min(asked) == 1
        assert sum(asked) - COUNT <= kills * CONNECTIONS
        whole, _ = settings(table, tmp_path / "whole")
        states = stage.run(TableConfig(**whole), FetchConfig(**fetch))
    assert sum(states.values()) == COUNT
    assert states["not_found"] == 9
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not [*(tmp_path / "killed/.fetch").iterdir()]


def test_interrupted_it_goes_on_where_it_was(tmp_path):
    """Ctrl-C and SIGTERM raise in whatever is running; nothing is written off or asked for twice."""
    with in_thread() as server:
        table = write_table(tmp_path / "t.tsv", server.base)
        dataset, fetch = settings(table, tmp_path / "images")

        class Interrupted(stage.Client):
            async def ask(self, url, way):
                if url.endswith("/ok/200.jpg"):
                    asyncio.get_running_loop().call_soon(_interrupt)
                return await super().ask(url, way)

        with pytest.raises(KeyboardInterrupt):
            stage.run(TableConfig(**dataset), FetchConfig(**fetch), new_client=Interrupted)
        kept = {url: server.asked[path_of(url)] for url in answered(tmp_path / "images")}
        assert len(kept) > 100
        stage.run(TableConfig(**dataset), FetchConfig(**fetch))
        assert {url: server.asked[path_of(url)] for url in kept} == kept
        whole, _ = settings(table, tmp_path / "whole")
        stage.run(TableConfig(**whole), FetchConfig(**fetch))
    assert contents(tmp_path / "images") == contents(tmp_path / "whole")


def _interrupt():
    raise KeyboardInterrupt

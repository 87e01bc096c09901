"""How fast pictures are fetched from a server on loopback, beside what `wrk` draws from it, and the memory it takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from statistics import median

from workflows.bench import compare
from workflows.bench.compare import say
from workflows.bench.fetching_once import SMALL_BYTES, Measured, measured
from workflows.bench.picture_server import picture, serving

WAIT_S = 0.05  # the server's, before each answer
BYTES = 30_000
CONNECTIONS = 64
COUNT = 12_000  # more than a shard
AT_ONE_TIME = (1, 4, 16, 64)
SECONDS = 5  # of wrk, and about of each row of AT_ONE_TIME
SIZES = (10_000, 500_000)
ROWS_PER_SHARD = 10_000  # of SIZES: the default

Rates = dict[str, list[float]]


def run() -> None:
    """Print rates and their ratio to wrk's, CPU time, and peak memory."""
    size = len(picture(BYTES))
    with serving(BYTES, WAIT_S) as port:
        _speed(port, size)
        _at_one_time(port)
    _memory()


def _speed(port: int, size: int) -> None:
    wrk, ours, found = [], [], []
    for _ in range(compare.ROUNDS):
        wrk.append(_wrk(port, CONNECTIONS))
        found.append(measured(COUNT, CONNECTIONS, port))
        ours.append(_rate(found[-1]))
    say(
        f"\nfetching pictures of {size:,} bytes with {CONNECTIONS} connections from a server that waits "
        f"{1000 * WAIT_S:.0f} ms, {COUNT:,} each time (median of {compare.ROUNDS} rounds; at most "
        f"{CONNECTIONS / WAIT_S:,.0f} img/s)"
    )
    peak = max(each.peak_mb for each in found)
    say(
        f"  ours                 {median(ours):8,.0f} img/s {_cpu(found):8.2f} ms of CPU each, "
        f"{peak:.0f} MiB at the peak"
    )
    drawn = [rate for rate in wrk if rate is not None]
    if not drawn:
        say("  wrk is not installed (Debian's package is called wrk), so there is no ratio")
        return
    ratio = median(mine / other for mine, other in zip(ours, drawn, strict=True))
    say(f"  wrk                  {median(drawn):8,.0f} img/s")
    say(f"  ratio                {ratio:8.2f}       (aim 0.90)")


def _at_one_time(port: int) -> None:
    say("\n  connections      ours, img/s   wrk, img/s   at most")
    for connections in AT_ONE_TIME:
        most = connections / WAIT_S
        ours = _rate(measured(max(round(most * SECONDS), 1), connections, port))
        wrk = _wrk(port, connections)
        shown = "–" if wrk is None else f"{wrk:,.0f}"
        say(f"  {connections:11} {ours:16,.0f} {shown:>12} {most:9,.0f}")


def _memory() -> None:
    say(
        f"\npeak memory of the fetching process, {CONNECTIONS} connections, {ROWS_PER_SHARD:,} rows for each "
        f"shard; a client without a network that answers at once with pictures of {SMALL_BYTES:,} bytes"
    )
    peaks = []
    for count in SIZES:
        found = measured(count, CONNECTIONS, rows_per_shard=ROWS_PER_SHARD)
        peaks.append(found.peak_mb)
        say(f"  {count:>9,} addresses {found.peak_mb:8.0f} MiB {found.seconds:8.0f} s")
    say(f"  growth {peaks[-1] / peaks[0] - 1:.1%} (aim: none, and at most 300 MiB)")


def _rate(found: Measured) -> float:
    return found.stored / found.seconds


def _cpu(found: list[Measured]) -> float:
    return median(1000 * each.cpu_s / each.stored for each in found)


def _wrk(port: int, connections: int) -> float | None:
    """Answers a second; None without wrk."""
    if shutil.which("wrk") is None:
        return None
    command = ["wrk", f"-c{connections}", "-t1", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/0.jpg"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise RuntimeError(f"wrk says\n{done.stdout}")
    return float(found[1])

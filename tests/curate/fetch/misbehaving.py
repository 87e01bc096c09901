"""A server on loopback that answers well or badly on purpose, for tests, benchmarks and trials.

Raw asyncio, because much of what it sends is no sound HTTP. ``python -m tests.curate.fetch.misbehaving
--port 8000`` runs it alone; ``--rows 20000`` first writes a table of its addresses. What it answers is in
``misbehaviours``, what an address ends in is in ``addresses_to_ask``.
"""

import argparse
import asyncio
import contextlib
import csv
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

from tests.curate.fetch import misbehaviours  # noqa: F401 (fills KINDS)
from tests.curate.fetch.addresses_to_ask import BAD, GOOD, SLOW, captions, table
from tests.curate.fetch.answers import KINDS, Asked, answer, picture

__all__ = [
    "BAD",
    "GOOD",
    "KINDS",
    "OTHERS",
    "SLOW",
    "Server",
    "answer",
    "captions",
    "in_thread",
    "picture",
    "table",
]

ROBOTS = "User-agent: *\nDisallow: /private/\n"
OTHERS = tuple(f"127.0.0.{number}" for number in range(10, 42))
"""For ``Server.also``, where the system has all of 127.0.0.0/8 as Linux has."""

_LONGEST_S = 60.0  # no answer goes on for longer, whatever the client does


class Server:
    """Listens while its ``async with`` lasts, on ``address`` and those of ``also``.

    Attributes:
        base: such as ``http://127.0.0.1:8000``.
        asked: how often each target (path with query) was asked for.
        agents: the User-Agents seen.
        most_at_once: the most requests that were in work at one time.
        connections: how many connections were accepted.
        robots: the text of robots.txt, or a whole answer as bytes; changed by tests.
    """

    def __init__(
        self,
        latency_s: float = 0.0,
        looks: int | None = None,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        also: tuple[str, ...] = (),
        port: int = 0,
        robots: str | bytes = ROBOTS,
    ):
        self.latency_s, self.looks, self.tls = latency_s, looks, tls
        self.address, self.also, self.port = address, also, port
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.last_target = ""
        self.last_headers: dict[str, str] = {}
        self.connections = self.at_once = self.most_at_once = 0
        self.robots = robots
        self.tasks: set[asyncio.Task] = set()
        self.open: set[Connection] = set()

    @property
    def limited(self) -> list[str]:
        """As ``base``, of the addresses of ``also``; see `table`."""
        return [self.base.replace(self.address, address) for address in self.also]

    @property
    def base(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.port}"

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.listening = []
        for address in (self.address, *self.also):
            listening = await loop.create_server(
                lambda: Connection(self), address, self.port, ssl=self.tls, backlog=1024
            )
            self.listening.append(listening)
            self.port = listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        for listening in self.listening:
            listening.close()
        for task in self.tasks:
            task.cancel()
        for connection in [*self.open]:
            connection.transport.abort()
        await asyncio.sleep(0)


@contextlib.contextmanager
def in_thread(**arguments) -> Iterator[Server]:
    """A `Server` with a loop of its own, for what is no coroutine."""
    server, ready, loop = Server(**arguments), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve():
        async with server:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(5)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, server: Server):
        self.server, self.buffer = server, b""

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections += 1
        self.server.open.add(self)

    def connection_lost(self, exc):
        self.server.open.discard(self)

    def data_received(self, data):
        self.buffer += data
        if self.buffer[:1] == b"\x16":  # TLS, where this server speaks none
            self.transport.write(answer(400, b"This is an HTTP server."))
            self.transport.close()
        while b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            self.start(head.decode("latin-1"))

    def start(self, head: str) -> None:
        server = self.server
        first, *lines = head.split("\r\n")
        target = first.split(" ")[1]
        path, _, query = target.partition("?")
        pairs = {name: values[0] for name, values in parse_qs(query).items()} if query else {}
        split = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in split}
        asked = Asked(path, pairs, headers, server.asked[target])
        server.asked[target] += 1
        server.agents.add(headers.get("user-agent", ""))
        server.last_target, server.last_headers = target, headers
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
        if server.latency_s and path != "/robots.txt":
            asyncio.get_running_loop().call_later(server.latency_s, self.reply, asked)
        else:
            self.reply(asked)

    def reply(self, asked: Asked) -> None:
        self.server.at_once -= 1
        kind = asked.path.split("/")[1]
        made = KINDS[kind](self, asked) if kind in KINDS else answer(404)
        if isinstance(made, bytes):
            self.transport.write(made)
        elif made is not None:
            task = asyncio.get_running_loop().create_task(self.bounded(made))
            self.server.tasks.add(task)
            task.add_done_callback(self.server.tasks.discard)

    async def bounded(self, made) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(made, _LONGEST_S)
        self.transport.close()


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--looks", type=int, help="draw only so many different pictures")
    parser.add_argument("--kb", type=float, default=0.0, help="size of the good pictures")
    parser.add_argument("--rows", type=int, help="write a table of so many addresses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("misbehaving.tsv"), help="url, caption, state"
    )
    told = parser.parse_args()
    async with Server(told.latency, told.looks, port=told.port, also=OTHERS) as server:
        if told.rows:
            rows = table(server.base, told.rows, told.seed, kb=told.kb, limited=server.limited)
            with told.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow(("url", "caption", "expected"))
                for (url, state), caption in zip(rows, captions(told.rows), strict=True):
                    writer.writerow((url, caption, state))
        sys.stdout.write(f"{server.base}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())

"""A server on loopback that waits, then sends the same picture: `python -m workflows.bench.picture_server`."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def picture(size: int) -> bytes:
    """A JPEG of about so many bytes."""
    import numpy as np
    from PIL import Image

    side = max(8, round((size * 1.5) ** 0.5))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    best = b""
    for quality in range(5, 96, 5):
        stream = io.BytesIO()
        noise.save(stream, "JPEG", quality=quality)
        found = stream.getvalue()
        if not best or abs(len(found) - size) < abs(len(best) - size):
            best = found
    return best


class _Connection(asyncio.Protocol):
    """Answers each request after a wait; a client sends no body and waits for each answer."""

    def __init__(self, answer: bytes, wait_s: float) -> None:
        self._answer, self._wait_s = answer, wait_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            is_picture = b"/robots.txt " not in self._received[:end].partition(b"\r\n")[0]
            self._received = self._received[end + 4 :]
            answer = self._answer if is_picture else _NOT_FOUND
            if self._wait_s:
                self._loop.call_later(self._wait_s, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)  # type: ignore[attr-defined]


async def _serve(size: int, wait_s: float) -> None:
    body = picture(size)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(head.encode() + body, wait_s), "127.0.0.1", 0, backlog=1024
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it closes the pipe
    server.close()


@contextmanager
def serving(size: int, wait_s: float) -> Iterator[int]:
    """A server in a process of its own; its port.

    Args:
        size: about how many bytes the picture has.
        wait_s: before each answer.
    """
    command = [sys.executable, "-m", __name__, str(size), str(wait_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
            server.wait(10)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))

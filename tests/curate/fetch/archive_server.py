"""A server on loopback that serves one archive, with ranges, and misbehaves on request."""

import contextlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server does. ``cuts`` has, for each answer to come, how many bytes are sent before a cut."""

    body: bytes
    etag: str = '"one"'
    cuts: list = field(default_factory=list)
    statuses: list = field(default_factory=list)
    ranges: bool = True
    honours_if_range: bool = True
    says_length: int | None = None  # instead of the truth
    sends_length: bool = True
    location: str = ""
    bytes_per_s: float = 0.0
    asked: list = field(default_factory=list)  # Range headers
    agents: set = field(default_factory=set)  # User-Agent headers
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        how = self.server.behaviour
        wanted = self.headers.get("Range", "")
        how.asked.append(wanted)
        how.agents.add(self.headers.get("User-Agent", ""))
        if how.statuses:
            status = how.statuses.pop(0)
            self.send_response(status)
            if how.location:
                self.send_header("Location", how.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        is_same = not how.honours_if_range or self.headers.get("If-Range") in (None, how.etag)
        if wanted and how.ranges and is_same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            self.send_response(206)
            size = how.says_length or len(how.body)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if how.etag:
            self.send_header("ETag", how.etag)
        body = how.body[start:]
        if how.sends_length:
            self.send_header("Content-Length", str(how.says_length or len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = how.cuts.pop(0) if how.cuts else None
        self._send(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def _send(self, body):
        how = self.server.behaviour
        step = 1 << 14
        with contextlib.suppress(ConnectionError):
            for place in range(0, len(body), step):
                self.wfile.write(body[place : place + step])
                how.sent += len(body[place : place + step])
                if how.bytes_per_s:
                    time.sleep(step / how.bytes_per_s)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away is no news."""


@contextlib.contextmanager
def serving(behaviour):
    """Serve until the block ends; yields the address of the host."""
    server = Server(("127.0.0.1", 0), Handler)
    server.behaviour = behaviour
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

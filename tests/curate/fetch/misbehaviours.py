"""What a server does well and badly on purpose, by the first part of the path."""

import asyncio
import gzip
import socket
import struct
import zlib
from functools import lru_cache

from tests.curate.fetch.answers import FORMATS, MIME, answer, drawn, kind, picture

_BOMB_BYTES = 100_000_000
_MOST = 1 << 30  # bytes of an endless body, for a client without a cap


def good(connection, asked):
    kb = float(asked.query.get("kb", 0))
    return picture(asked.number, kb=kb, looks=connection.server.looks)


@kind("ok")
def _ok(connection, asked):
    """``/ok/7.jpg?kb=30``, ``.png``, ``.gif``, ``.webp``."""
    extension = asked.path.rpartition(".")[2]
    if extension not in FORMATS:
        return answer(404)
    kb, looks = float(asked.query.get("kb", 0)), connection.server.looks
    body = picture(asked.number, extension, kb, looks)
    return answer(200, body, f"Content-Type: {MIME[extension]}")


@kind("robots.txt")
def _robots(connection, asked):
    robots = connection.server.robots
    if isinstance(robots, bytes):
        return robots
    return answer(200, robots.encode(), "Content-Type: text/plain")


@kind("status")
def _status(connection, asked):
    """``/status/404/7``: this status, with a good picture as its body."""
    status = int(asked.path.split("/")[2])
    return answer(status, b"" if status in (204, 304) else good(connection, asked))


@kind("once")
def _once(connection, asked):
    """``/once/503/7.jpg?after=1``: this status with Retry-After, then fine; ``/once/reset/7.jpg``."""
    if asked.before:
        return answer(200, good(connection, asked), "Content-Type: image/jpeg")
    what = asked.path.split("/")[2]
    if what == "reset":
        return _reset(connection, asked)
    after = [f"Retry-After: {asked.query['after']}"] if "after" in asked.query else []
    return answer(int(what), b"later", *after)


@kind("header")
def _header(connection, asked):
    """``/header/7?X-Robots-Tag=noai``: a good picture with these headers; ``+`` stands for a space."""
    return answer(
        200, good(connection, asked), *(f"{name}: {value}" for name, value in asked.query.items())
    )


@kind("noai")
def _noai(connection, asked):
    """The picture follows only after a minute: whoever obeys the header does not wait for it."""
    return _reserved(connection, asked, "X-Robots-Tag: noai")


@kind("tdm")
def _tdm(connection, asked):
    return _reserved(connection, asked, "tdm-reservation: 1")


async def _reserved(connection, asked, header):
    body = good(connection, asked)
    whole = answer(200, body, "Content-Type: image/jpeg", header)
    connection.transport.write(whole[: -len(body)])
    await asyncio.sleep(60)
    connection.transport.write(body)


@kind("private")
def _private(connection, asked):
    """Forbidden by robots.txt."""
    return answer(200, good(connection, asked))


@kind("redirect")
def _redirect(connection, asked):
    """``/redirect/302?to=http%3A%2F%2F...``; what else the query has are further headers."""
    query = dict(asked.query)
    to = query.pop("to")
    headers = (f"{name}: {value}" for name, value in query.items())
    return answer(int(asked.path.split("/")[2]), b"moved", f"Location: {to}", *headers)


@kind("hops")
def _hops(connection, asked):
    """``/hops/3/7``: so many redirects, then a good picture."""
    left = int(asked.path.split("/")[2])
    if left:
        return answer(302, b"", f"Location: ../{left - 1}/{asked.number}")
    return answer(200, good(connection, asked))


@kind("loop")
def _loop(connection, asked):
    return answer(302, b"", f"Location: {asked.path}")


@kind("to-metadata")
def _to_metadata(connection, asked):
    return answer(302, b"", "Location: http://169.254.169.254/latest/meta-data/")


@kind("to-private")
def _to_private(connection, asked):
    return answer(302, b"", "Location: http://192.168.0.1/7.jpg")


@kind("to-loopback")
def _to_loopback(connection, asked):
    """To another address of loopback, on the same port."""
    return answer(
        302, b"", f"Location: http://127.0.0.2:{connection.server.port}/ok/{asked.number}.jpg"
    )


@kind("to-file")
def _to_file(connection, asked):
    return answer(302, b"", "Location: file:///etc/passwd")


@kind("html")
def _html(connection, asked):
    """A page with status 200 that says it is a JPEG."""
    page = b"<!DOCTYPE html><html><body>This picture is gone.</body></html>"
    return answer(200, page, "Content-Type: image/jpeg")


@kind("wrong-type")
def _wrong_type(connection, asked):
    """A good picture that says it is a page."""
    return answer(200, good(connection, asked), "Content-Type: text/html")


@kind("empty")
def _empty(connection, asked):
    return answer(200, b"", "Content-Type: image/jpeg")


@kind("truncated")
def _truncated(connection, asked):
    """Half of a JPEG, with the right Content-Length."""
    body = drawn(asked.number, "jpg")
    return answer(200, body[: len(body) // 2], "Content-Type: image/jpeg")


@kind("no-end")
def _no_end(connection, asked):
    """A JPEG of which only the last two bytes, the end marker, are missing."""
    return answer(200, good(connection, asked)[:-2], "Content-Type: image/jpeg")


@kind("pixels")
def _pixels(connection, asked):
    """The header of a PNG of 30,000 x 30,000 pixels."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    end = b"\0\0\0\0IEND\xaeB`\x82"
    return answer(200, b"\x89PNG\r\n\x1a\n" + chunk + end)


@kind("short")
def _short(connection, asked):
    """Fewer bytes than Content-Length says, then the end of the connection."""
    body = good(connection, asked)
    connection.transport.write(answer(200, body, length=len(body) + 1000))
    connection.transport.close()


@kind("long")
def _long(connection, asked):
    """More bytes than Content-Length says."""
    body = drawn(asked.number, "jpg")
    return answer(200, body, length=len(body) // 2)


@kind("huge-length")
def _huge_length(connection, asked):
    connection.transport.write(answer(200, b"\xff\xd8\xff", length=10**10))


@kind("endless")
async def _endless(connection, asked):
    """Chunks without an end, and no Content-Length."""
    transport, sent = connection.transport, 0
    transport.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"\xff\xd8\xff\xe0" * (0x10000 // 4) + b"\r\n"
    while sent < _MOST and not transport.is_closing():
        if transport.get_write_buffer_size() < 1 << 20:
            transport.write(chunk)
            sent += len(chunk)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.005)


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """The same deflate block again and again, for to compress as many zeros takes a second."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = struct.pack("<II", zlib.crc32(bytes(_BOMB_BYTES)), _BOMB_BYTES)
    return gzip.compress(b"")[:10] + block * (_BOMB_BYTES // 1_000_000) + b"\3\0" + end


@kind("bomb")
def _gzip_bomb(connection, asked):
    """100 MB of zeros in 100 kB."""
    return answer(200, _bomb(), "Content-Encoding: gzip")


@kind("encoded")
def _encoded(connection, asked):
    """``/encoded/gzip/7``, ``deflate``, ``raw-deflate`` (without zlib's header), ``br`` (a lie), ``cut``."""
    how, body = asked.path.split("/")[2], good(connection, asked)
    packed = {
        "gzip": lambda: gzip.compress(body),
        "cut": lambda: gzip.compress(body)[:-100],
        "deflate": lambda: zlib.compress(body),
        "raw-deflate": lambda: zlib.compress(body)[2:-4],
        "br": lambda: body,
        "broken": lambda: b"\x1f\x8b\x08" + body,
    }[how]()
    name = {"raw-deflate": "deflate", "cut": "gzip", "broken": "gzip"}.get(how, how)
    return answer(200, packed, f"Content-Encoding: {name}")


@kind("chunked")
def _chunked(connection, asked):
    """A good picture in chunks, without a Content-Length."""
    body = good(connection, asked)
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    return b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + framed


@kind("bad-chunk")
def _bad_chunk(connection, asked):
    """A chunk of a size that is no number."""
    first = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    return first + b"4\r\n\xff\xd8\xff\xe0\r\nzzz\r\n\r\n"


@kind("chunks-cut")
def _chunks_cut(connection, asked):
    """Chunks without the last one, then the end of the connection."""
    whole = _chunked(connection, asked)
    connection.transport.write(whole[: -len(b"0\r\n\r\n")])
    connection.transport.close()


@kind("until-close")
def _until_close(connection, asked):
    """A good picture that ends with the connection, as HTTP/1.0 has it."""
    connection.transport.write(b"HTTP/1.0 200 X\r\n\r\n" + good(connection, asked))
    connection.transport.close()


@kind("loris")
async def _loris(connection, asked):
    """Headers, one byte at a time, without an end."""
    connection.transport.write(b"HTTP/1.1 200 X\r\n")
    while not connection.transport.is_closing():
        connection.transport.write(b"A")
        await asyncio.sleep(0.05)


@kind("drip")
async def _drip(connection, asked):
    """A body, one byte at a time."""
    connection.transport.write(answer(200, b"\xff\xd8\xff", length=100_000))
    while not connection.transport.is_closing():
        connection.transport.write(b"A")
        await asyncio.sleep(0.05)


@kind("stall")
async def _stall(connection, asked):
    """Half a body, then silence."""
    body = good(connection, asked)
    connection.transport.write(answer(200, body[: len(body) // 2], length=len(body)))
    await _silence(connection)


@kind("never")
async def _never(connection, asked):
    """No answer at all."""
    await _silence(connection)


async def _silence(connection):
    while not connection.transport.is_closing():
        await asyncio.sleep(0.05)


@kind("reset")
def _reset(connection, asked):
    """A reset instead of an answer."""
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


@kind("reset-within")
async def _reset_within(connection, asked):
    """A reset in the middle of a body."""
    connection.transport.write(answer(200, b"\xff\xd8\xff" + bytes(1000), length=100_000))
    await asyncio.sleep(0.05)
    _reset(connection, asked)


@kind("hang-up")
def _hang_up(connection, asked):
    """The connection closed instead of an answer."""
    connection.transport.close()


@kind("huge-header")
def _huge_header(connection, asked):
    return answer(200, good(connection, asked), "X-Long: " + "x" * 100_000)


@kind("many-headers")
def _many_headers(connection, asked):
    return answer(200, good(connection, asked), *(f"X-Many-{i}: {i}" for i in range(5000)))


@kind("long-line")
def _long_line(connection, asked):
    """``/long-line/header/8190``: a header of so many bytes; ``/long-line/status/8190``: the first line."""
    where, length = asked.path.split("/")[2:4]
    whole = answer(200, good(connection, asked), "X-Long: " + "a" * (int(length) - 8))
    if where == "status":
        first = b"HTTP/1.1 200 "
        whole = (
            first
            + b"a" * (int(length) - len(first))
            + b"\r\n"
            + answer(200, picture(1)).partition(b"\r\n")[2]
        )
    return whole


@kind("no-http")
def _no_http(connection, asked):
    connection.transport.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    connection.transport.close()

import asyncio
import gzip
import random
import time
import zlib
from types import SimpleNamespace

import pytest

from curate.fetch import bodies
from curate.fetch.bodies import BadBody

WHOLE = random.Random(0).randbytes(300_000)
EMPTY = gzip.compress(b"", mtime=0)
MOST = 1_000_000


class Content:
    def __init__(self, *chunks):
        self.chunks = [*chunks]

    async def readany(self):
        return self.chunks.pop(0) if self.chunks else b""


def read(body, encoding="gzip", most=MOST, cut=False, length=None):
    response = SimpleNamespace(
        headers={"Content-Encoding": encoding}, content_length=length, content=Content(body)
    )
    return asyncio.run(bodies.read(response, most, cut=cut))


def raw_deflate(body):
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", WHOLE),
        ("identity", WHOLE),
        ("gzip", gzip.compress(WHOLE)),
        ("GZIP", gzip.compress(WHOLE[:7]) + EMPTY * 3 + gzip.compress(WHOLE[7:]) + EMPTY),
        ("x-gzip", gzip.compress(WHOLE) + b"something else" * 10_000),
        ("gzip", gzip.compress(WHOLE) + bytes(512)),
        ("deflate", zlib.compress(WHOLE)),
        ("deflate", zlib.compress(WHOLE) + b"else"),
        ("deflate", raw_deflate(WHOLE)),
    ],
)
def test_a_body_is_unpacked(encoding, body):
    assert read(body, encoding) == WHOLE
    assert read(body, encoding, most=max(len(body), len(WHOLE))) == WHOLE
    assert WHOLE.startswith(read(body, encoding, most=1000, cut=True))
    with pytest.raises(BadBody) as error:
        read(body, encoding, most=len(WHOLE) - 1)
    assert error.value.answer.state == "too_large"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("length", [1, 5, 100, 70_000, 299_000])
def test_a_part_of_a_packed_body_is_told(encoding, length):
    packed = gzip.compress(WHOLE) if encoding == "gzip" else zlib.compress(WHOLE)
    for body in (packed[:length], gzip.compress(b"a") + packed[:length]):
        if encoding == "gzip" or body == packed[:length]:
            with pytest.raises(BadBody, match="cut short"):
                read(body, encoding)


def test_a_broken_part_is_told_also_behind_a_whole_one():
    broken = bytearray(gzip.compress(WHOLE))
    broken[200_000] ^= 255
    for body in (bytes(broken), gzip.compress(b"a") + broken):
        with pytest.raises(BadBody, match="broken"):
            read(body)


def test_many_empty_parts_take_no_time():
    started = time.process_time()
    with pytest.raises(BadBody, match="too many parts"):
        read(EMPTY * 100_000, most=10 * MOST)
    assert (
        time.process_time() - started < 2
    )  # 0.02 on the machine that this was written on; it was 7.7


def test_the_event_loop_goes_on_while_a_body_is_unpacked(monkeypatch):
    turns = []

    def unpacked(*_):
        time.sleep(0.1)
        return b"a"

    async def run():
        response = SimpleNamespace(
            headers={"Content-Encoding": "gzip"}, content_length=None, content=Content(EMPTY)
        )
        task = asyncio.create_task(bodies.read(response, MOST))
        while not task.done():
            turns.append(1)
            await asyncio.sleep(0.001)
        return task.result()

    monkeypatch.setattr(bodies, "_unpacked", unpacked)
    assert asyncio.run(run()) == b"a"
    assert len(turns) > 5

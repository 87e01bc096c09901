"""An odd TIFF is counted, not printed."""

import io
import subprocess
import sys

from PIL import Image

READ = """
import sys
from curate.measures.decode import UnreadableImage, decode
from curate.measures import libtiff
if sys.argv[1] == "loud":
    libtiff.silence = lambda: None
try:
    decode(sys.stdin.buffer.read())
except UnreadableImage:
    pass
"""


def odd_tiff() -> bytes:
    """Compressed, so that libtiff reads it, and damaged."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "TIFF", compression="tiff_lzw")
    data = bytearray(stream.getvalue())
    data[1000:1200] = b"\xff" * 200
    return bytes(data)


def test_libtiff_writes_nothing_to_the_terminal():
    def said(how):
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", READ, how], input=odd_tiff(), capture_output=True, check=True)  # fmt: skip
        return run.stderr

    assert said("silent") == b""
    assert said("loud")

"""Text from bytes: by its byte order mark, as UTF-8, or in the one encoding that fits the texts of its data set.

Few bytes say little of their encoding, so that texts which are neither marked nor UTF-8 are judged together.
What could be read in two ways, or in none, is refused: its text has U+FFFD for each byte that has no meaning,
and the rule ``caption_garbled`` drops such captions.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from curate.run.schema import check

_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK_AT_LINE = re.compile("^\ufeff+", re.MULTILINE)  # joined files have marks in the middle
_POOL_BYTES = 16384
# Measured on emoji names in ten languages, in the encodings of Windows, of old Macs and of DOS: of single names up to 8 %
# were read wrong; with this evidence 1 in 577 pools of four names was, and none of 574 of six; 285 and 27 were refused.
_MIN_TEXTS, _MIN_BYTES = 4, 6
# How much likelier another encoding of one text may be than its pool's; a text with fewer bytes above 127, each a
# character, is not doubted. Of Chinese, Japanese, Korean and Russian names in a pool of another script 90 to 100 % are
# refused so, of the pool's own 0 to 2 %. A few accents are never told from another script's letters.
_CONTRADICTION, _CONTRADICTION_BYTES = 3.0, 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, and the encoding in which it was read; "" where none fits, and the text holds U+FFFD."""

    text: str
    encoding: str


class TextDecoder:
    """Decodes the texts of one data set, or of one file of it."""

    def __init__(self, declared: str | None, samples: Callable[[], Iterable[bytes]]) -> None:
        """Decode texts that are neither marked nor UTF-8 in the encoding ``declared``.

        If it is None, it is detected: ``samples`` then starts a pass over texts of the data set, in a fixed
        order. It is called once at most, when the first such text is met; what is UTF-8 in it does not matter.
        """
        self._declared = declared
        self._samples = samples
        self._detected: str | None = None

    def decode(self, data: bytes) -> Decoded:
        """The text of ``data``, without byte order marks."""
        if known := _certain(data):
            return known
        if self._declared:
            return _strict(data, self._declared) or _refused(data)
        if _is_damaged_utf8(data):
            return _refused(data)
        if self._detected is None:
            self._detected = detect(self._samples())
        return (_fits(data, self._detected) if self._detected else None) or _refused(data)


def detect(texts: Iterable[bytes]) -> str:
    """The encoding of those ``texts`` that are neither marked nor UTF-8; "" if too few fit one.

    Each text votes, and those that the winner fits are then judged together; both have to agree. So a text
    of another script among them changes nothing, and a mixture of two encodings gives none.
    """
    pool, size = [], 0
    for data in texts:
        if _certain(data) or _is_damaged_utf8(data):
            continue
        pool.append(data)
        size += len(data)
        if size > _POOL_BYTES:
            break
    elected = _elected(pool)
    fitting = [data for data in pool if elected and _fits(data, elected)]
    joined = b"\n".join(fitting)
    if len(fitting) < _MIN_TEXTS or _bytes_above_ascii(joined) < _MIN_BYTES:
        return ""
    _, text, encoding = next(iter(_readings(joined)), (0, "", ""))
    return encoding if _strict(joined, elected) == Decoded(text, elected) else ""


def _elected(pool: Iterable[bytes]) -> str:
    """The encoding with the most votes: each text has one for its likeliest, and a part of one for others."""
    votes: dict[str, float] = {}
    for readings in map(_readings, pool):
        for confidence, _, encoding in readings:
            votes[encoding] = votes.get(encoding, 0.0) + confidence / (readings[0][0] or 1)
    return max(votes, key=lambda encoding: votes[encoding], default="")


def _fits(data: bytes, encoding: str) -> Decoded | None:
    """``data`` read in ``encoding``, unless it is far more likely in another one."""
    read = _strict(data, encoding)
    if read is None or (
        len(read.text) == len(data) and _bytes_above_ascii(data) < _CONTRADICTION_BYTES
    ):
        return read
    readings = _readings(data)
    own = max((confidence for confidence, text, _ in readings if text == read.text), default=0.0)
    rival = max((confidence for confidence, text, _ in readings if text != read.text), default=0.0)
    return None if rival > own * _CONTRADICTION else read


def check_encoding(name: str | None) -> None:
    """Refuse a ``dataset.encoding`` that Python does not know."""
    sound = name is None or is_encoding(name)
    check(sound, "dataset.encoding", name, "null or an encoding, such as cp1252")


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text under this name."""
    try:
        b"text".decode(name, "replace")  # Python looks no name up for no bytes
    except (LookupError, ValueError):
        return False
    return True


def _certain(data: bytes) -> Decoded | None:
    """``data`` read by its mark, as UTF-16 without one, or as UTF-8."""
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")
    if marked:
        return _strict(data, marked) or _refused(data, marked)
    wide = _unmarked_utf16(data)
    return (_strict(data, wide) if wide else None) or _strict(data, "utf-8")


def _unmarked_utf16(data: bytes) -> str:
    """UTF-16 whose characters mostly have a zero byte, on one side only; "" for other data."""
    if not data or len(data) % 2:
        return ""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if max(even, odd) * 4 < len(data) or min(even, odd):
        return ""
    return "utf-16-le" if odd else "utf-16-be"


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return Decoded(_MARK_AT_LINE.sub("", text), encoding)


def _refused(data: bytes, encoding: str = "utf-8") -> Decoded:
    text = data.decode(encoding, "replace")
    return Decoded(_MARK_AT_LINE.sub("", text), "")


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether ``data`` is UTF-8 but for a few bytes: other encodings seldom form UTF-8's characters."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return sum(ord(character) > 127 for character in text) >= 2 * bad


def _bytes_above_ascii(data: bytes) -> int:
    return sum(byte > 127 for byte in data)


def _readings(data: bytes) -> list[tuple[float, str, str]]:
    """Confidence, text and encoding of each way to read ``data``, the most likely first."""
    from chardet import EncodingEra, detect_all

    eras = EncodingEra.MODERN_WEB | EncodingEra.LEGACY_MAC | EncodingEra.DOS
    found = detect_all(data, ignore_threshold=True, encoding_era=eras)
    readings = []
    for guess in found:
        if guess["encoding"] and is_encoding(guess["encoding"]):
            encoding = codecs.lookup(guess["encoding"]).name
            if read := _strict(data, encoding):
                readings.append((guess["confidence"], read.text, encoding))
    return readings

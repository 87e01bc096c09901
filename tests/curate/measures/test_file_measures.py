"""No bytes make a measure of files raise: one picture must not end a curation."""

import random
import warnings
import zlib

import pytest

from curate.measures import registry
from tests.curate.measures.test_consent import NO, chunk, png, saved

NOISE = (b"<a>" * 200, b"<!DOCTYPE x [", b"<!ENTITY e 'x'>", b"&e;", b"]]>", b"<![CDATA[")
NOISE += (b"plus:DataMining=''", b"rdf:resource=''", b"xmlns:xml=''", b"DMI-", b"\0", b"\xff\xfe")
NOISE += (b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0")  # no UTF-8
DECLARED = ("", "utf-8", "rot13", "base64", "x-unknown", "idna")  # at the start of a packet
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1")


def mutated(draw, text):
    """Some bytes of a text turned, taken out, doubled, or replaced by what parsers stumble on."""
    found = bytearray(text)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(found) + 1)
        what = draw.randrange(4)
        if what == 0:
            found[place:place] = draw.choice(NOISE) if draw.random() < 0.9 else draw.randbytes(9)
        elif what == 1:
            del found[place : place + draw.randint(1, 200)]
        elif what == 2:
            found[place : place + 1] = draw.randbytes(1)
        else:
            found[place:place] = found[place : place + draw.randint(1, 200)]
    return bytes(found)


def pictures(draw, text):
    """A text as the XMP of a picture of each kind, and the picture itself mutated."""
    packed = bytes([draw.random() < 0.5, 0])
    body = zlib.compress(text) if packed[0] else text
    yield png(mutated(draw, text), packed=draw.random() < 0.5)
    yield mutated(draw, saved("PNG")[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0" + packed + body))
    for kind in ("JPEG", "WEBP"):
        whole = saved(kind, xmp=text[:60_000])
        yield whole
        yield mutated(draw, whole)


def raised(name, data):
    """What a measure raised, and whether what it gave can be a column's text."""
    (measure,) = registry.file_measures([name])
    try:
        found = measure.measure(data)
    except Exception as error:
        return repr(error)
    is_sound = found.keys() == set(measure.columns) and all(
        value is None or value.encode() for value in found.values()
    )
    return "" if is_sound else repr(found)


NAMES = sorted(n for n in registry.MEASURES if registry.file_measures([n]))


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_makes_it_raise(name):
    if name == "credentials":
        pytest.importorskip("c2pa")
    draw = random.Random(19)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what is wrong with a file
        for _ in range(150):
            declared = draw.choice(DECLARED)
            start = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
            text = (start + NO.decode()).encode(draw.choice(ENCODINGS), "replace")
            for data in pictures(draw, mutated(draw, text)):
                assert raised(name, data) == ""


def test_no_content_credentials_make_it_raise():
    pytest.importorskip("c2pa")
    from tests.curate.measures.content_credentials import created, signed, training

    draw = random.Random(19)
    whole = {k: signed(training("notAllowed"), created("x"), kind=k) for k in ("JPEG", "PNG")}
    for _ in range(100):
        assert raised("credentials", mutated(draw, whole[draw.choice(("JPEG", "PNG"))])) == ""

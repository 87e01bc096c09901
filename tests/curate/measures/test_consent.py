"""What XMP says of a picture's use is found wherever a format keeps it, and however it is written."""

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image

from curate.measures import consent, xmp
from curate.measures.measure import LONGEST

VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
NOTHING = {"data_mining": None, "digital_source": None}


def packet(inner="", attributes="", prefix="plus"):
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:{prefix}="http://ns.useplus.org/ldf/xmp/1.0/"'
        f' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{attributes}>'
        f'{inner}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def element(term):
    return packet(f"<plus:DataMining>{VOCABULARY}{term}</plus:DataMining>")


def saved(kind, **options):
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), "teal").save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(text, packed=False, behind=False):
    whole = saved("PNG")
    text = zlib.compress(text) if packed else text
    body = b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + text
    place = whole.rindex(b"IEND") - 4 if behind else 33
    return whole[:place] + chunk(b"iTXt", body) + whole[place:]


def jpeg(*segments):
    whole = saved("JPEG")
    added = b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments)
    return whole[:2] + added + whole[2:]


NO = element("DMI-PROHIBITED-GENAIMLTRAINING")
FILES = {
    "jpeg": lambda xmp: saved("JPEG", xmp=xmp),
    "webp": lambda xmp: saved("WEBP", xmp=xmp),
    "webp without loss": lambda xmp: saved("WEBP", xmp=xmp, lossless=True),
    "png": png,
    "png, packed": lambda xmp: png(xmp, packed=True),
    "png, behind the pixels": lambda xmp: png(xmp, behind=True),
    "tiff": lambda xmp: saved("TIFF", tiffinfo={700: xmp}),
    "avif": lambda xmp: saved("AVIF", xmp=xmp),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_is_read(kind):
    assert consent.measure(FILES[kind](NO))["data_mining"] == "DMI-PROHIBITED-GENAIMLTRAINING"
    assert consent.measure(FILES[kind](packet())) == NOTHING


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_picture_without_metadata_says_nothing(kind):
    assert consent.measure(saved(kind)) == NOTHING


@pytest.mark.parametrize(
    "written",
    [
        NO,
        packet(attributes=f' plus:DataMining="{VOCABULARY}DMI-PROHIBITED-GENAIMLTRAINING"'),
        packet(f'<plus:DataMining rdf:resource="{VOCABULARY}DMI-PROHIBITED-GENAIMLTRAINING"/>'),
        packet(
            f"<p:DataMining><rdf:Bag><rdf:li>{VOCABULARY}DMI-PROHIBITED-GENAIMLTRAINING"
            "</rdf:li></rdf:Bag></p:DataMining>",
            prefix="p",
        ),
        packet("<plus:DataMining> DMI-PROHIBITED-GENAIMLTRAINING\n</plus:DataMining>"),
        NO.decode().encode("utf-16"),
        NO.decode().encode("utf-16-le"),  # the mark is in the first line only
        NO.decode().encode("utf-16-be"),
    ],
)
def test_every_way_to_write_it_is_read(written):
    (found,) = xmp.packets(png(written))
    assert xmp.values(found, [consent._PLUS])  # not only as a term in some text
    found = consent.measure(png(written))
    assert found["data_mining"] == "DMI-PROHIBITED-GENAIMLTRAINING"


def test_a_label_in_place_of_the_term_prohibits():
    said = packet("<plus:DataMining>Prohibited for AI/ML training</plus:DataMining>")
    assert consent.measure(png(said))["data_mining"] == "DMI-PROHIBITED"


def test_the_same_name_in_another_namespace_means_nothing():
    other = packet(f"<plus:DataMining>{VOCABULARY}DMI-PROHIBITED</plus:DataMining>").replace(
        b"http://ns.useplus.org/ldf/xmp/1.0/", b"http://example.org/"
    )
    assert xmp.values(other, [("http://example.org/", "DataMining")])
    # ... but a term of the vocabulary in a packet without the property still counts as said
    assert consent.measure(png(other))["data_mining"] == "DMI-PROHIBITED"
    assert consent.measure(png(other.replace(VOCABULARY.encode(), b""))) == NOTHING


def test_of_several_values_the_one_that_prohibits_counts():
    both = packet(
        f"<plus:DataMining>{VOCABULARY}DMI-ALLOWED</plus:DataMining>"
        f"<plus:DataMining>{VOCABULARY}DMI-PROHIBITED</plus:DataMining>"
    )
    assert consent.measure(png(both))["data_mining"] == "DMI-PROHIBITED"
    two = jpeg(*(xmp._MAIN + element(f"DMI-{term}") for term in ("UNSPECIFIED", "PROHIBITED")))
    assert consent.measure(two)["data_mining"] == "DMI-PROHIBITED"


def test_the_source_is_the_last_part_of_its_term():
    drawn = packet(
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCES}trainedAlgorithmicMedia"
        "</Iptc4xmpExt:DigitalSourceType>"
    )
    found = consent.measure(saved("JPEG", xmp=drawn))
    assert found == {"data_mining": None, "digital_source": "trainedAlgorithmicMedia"}


def test_an_extended_packet_of_a_jpeg_is_put_together():
    half = len(NO) // 2
    size = len(NO).to_bytes(4, "big")

    def part(start, end):
        return xmp._EXTENDED + b"A" * 32 + size + start.to_bytes(4, "big") + NO[start:end]

    parts = [part(half, len(NO)), part(0, half)]  # they may come in any order
    whole = jpeg(xmp._MAIN + packet(), *parts)
    assert xmp.packets(whole) == [packet(), NO]
    found = consent.measure(whole)
    assert found["data_mining"] == "DMI-PROHIBITED-GENAIMLTRAINING"


def test_a_term_in_a_broken_packet_counts():
    assert consent.measure(png(NO[:-60]))["data_mining"] == "DMI-PROHIBITED-GENAIMLTRAINING"
    assert consent.measure(png(NO + b"<garbage"))["data_mining"] is not None


def test_entities_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("DMI-PROHIBITED")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 12))
    for declared in (f'<!ENTITY e0 SYSTEM "file://{secret}">', f'<!ENTITY e0 "x">{bomb}'):
        evil = f"<!DOCTYPE x [{declared}]>".encode() + packet(
            "<plus:DataMining>&e0;&e11;</plus:DataMining>"
        ).split(b"?>", 1)[1].removesuffix(b'<?xpacket end="w"?>')
        assert xmp.values(evil, [consent._PLUS]) == {}
        assert consent.measure(png(evil)) == NOTHING


def test_a_declared_document_type_is_no_xmp():
    body = NO.split(b"?>", 1)[1]
    assert xmp.values(body, [consent._PLUS])
    assert (
        xmp.values(b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">' + body, [consent._PLUS]) == {}
    )


@pytest.mark.parametrize("name", ["x-unknown", "rot13", "base64", "utf-7", "idna", "latin-1"])
def test_a_declared_encoding_does_not_count(name):
    declared = f'<?xml version="1.0" encoding="{name}"?>'.encode() + NO.split(b"?>", 1)[1]
    assert xmp.values(declared, [consent._PLUS])
    assert consent.measure(png(declared))["data_mining"] == "DMI-PROHIBITED-GENAIMLTRAINING"


@pytest.fixture
def unpacked(monkeypatch):
    """How many bytes each packed text gave."""
    sizes = []

    class Counting:
        def __init__(self):
            self._of_zlib = zlib_decompressobj()

        def decompress(self, *arguments):
            found = self._of_zlib.decompress(*arguments)
            sizes.append(len(found))
            return found

    zlib_decompressobj = zlib.decompressobj
    monkeypatch.setattr(xmp.zlib, "decompressobj", Counting)
    return sizes


def test_what_is_packed_does_not_unpack_without_bounds(monkeypatch, unpacked):
    monkeypatch.setattr(xmp, "MOST_BYTES", 1000)
    (found,) = xmp.packets(png(b" " * 10_000_000, packed=True))
    assert len(found) == 1000
    assert consent.measure(png(NO * 10, packed=True))["data_mining"] is not None
    assert sum(unpacked) <= 2000


def many_texts(text, count):
    whole = png(text, packed=True)
    end = 33 + 12 + int.from_bytes(whole[33:37], "big")
    return whole[:33] + whole[33:end] * count + whole[end:]


def test_many_packed_packets_share_one_limit(monkeypatch, unpacked):
    monkeypatch.setattr(xmp, "MOST_BYTES", 1000)
    assert [len(each) for each in xmp.packets(many_texts(b" " * 400, 100))] == [400, 400, 200]
    assert unpacked == [400, 400, 200]  # and the others are not looked at


def test_only_some_packets_are_looked_at(unpacked):
    xmp.packets(many_texts(b"", 100))
    assert len(unpacked) == xmp.MOST_PACKETS


@pytest.mark.parametrize(
    "text",
    [b"<a>" * 6_000_000, b"<!DOCTYPE x [" + b'<!ENTITY e "x">' * 1_000_000],
    ids=["deep", "entities"],
)
def test_no_packet_takes_much_memory(text):
    marked = b"<DataMining>" + text
    data = png(marked, packed=True)
    tracemalloc.start()
    try:
        assert consent.measure(data) == NOTHING
        assert tracemalloc.get_traced_memory()[1] < 10 * xmp.MOST_BYTES
    finally:
        tracemalloc.stop()


def nested(depth):
    return packet(
        "<b>" * depth
        + f"<plus:DataMining>{VOCABULARY}DMI-ALLOWED</plus:DataMining>"
        + "</b>" * depth
    )


def test_what_lies_deeper_than_any_property_of_xmp_is_not_read():
    assert xmp.values(nested(xmp.MOST_DEPTH - 4), [consent._PLUS])
    assert xmp.values(nested(xmp.MOST_DEPTH - 3), [consent._PLUS]) == {}


def test_a_value_is_not_longer_than_a_term():
    long = packet(f"<Iptc4xmpExt:DigitalSourceType>{'x' * 10_000}</Iptc4xmpExt:DigitalSourceType>")
    assert consent.measure(png(long))["digital_source"] == "x" * LONGEST


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FILES)
def test_no_cut_and_no_flipped_byte_raises(kind):
    whole = FILES[kind](NO)
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        consent.measure(whole[:place])
        consent.measure(whole[:place] + b"\xff" + whole[place + 1 :])


def test_terms_that_allow_do_not_prohibit():
    assert not consent.is_prohibited("DMI-ALLOWED")
    assert not consent.is_prohibited("DMI-UNSPECIFIED")
    assert consent.is_prohibited("DMI-PROHIBITED-SEECONSTRAINT")

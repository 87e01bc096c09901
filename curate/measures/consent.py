"""What a picture's XMP says of its use: the property Data Mining, and how the picture came about.

Data Mining is PLUS's property, which IPTC's Photo Metadata Standard took over in 2023.1. Its values are terms
of PLUS's vocabulary (ns.useplus.org/ldf/vocab); all but ``DMI-UNSPECIFIED`` and ``DMI-ALLOWED`` prohibit:

| term                                        | prohibited                               |
|---------------------------------------------|------------------------------------------|
| ``DMI-PROHIBITED``                          | all data mining                          |
| ``DMI-PROHIBITED-AIMLTRAINING``             | training                                 |
| ``DMI-PROHIBITED-GENAIMLTRAINING``          | training of generative models            |
| ``DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING`` | all but the index of a search engine   |
| ``DMI-PROHIBITED-SEECONSTRAINT``            | unless a text of the same packet permits |
| ``DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR``    | unless rights in the same packet permit  |
| ``DMI-PROHIBITED-SEELINKEDRIGHTSEXPR``      | unless rights at an address permit       |

Digital Source Type is IPTC's property (cv.iptc.org/newscodes/digitalsourcetype), such as ``digitalCapture`` for a
photograph; ``trainedAlgorithmicMedia`` is a picture that a model drew.

Programs that save a picture again often leave XMP out, as img2dataset does where it resizes.
"""

from __future__ import annotations

import re

from curate.measures.measure import LONGEST, FileMeasure

DATA_MINING, SOURCE = "data_mining", "digital_source"

_MARKS = (b"DataMining", b"DigitalSourceType", b"DMI-")  # in what has either property
_PLUS = ("http://ns.useplus.org/ldf/xmp/1.0/", "DataMining")
_IPTC = ("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "DigitalSourceType")
_TERM = re.compile(rb"ns\.useplus\.org/ldf/vocab/(DMI-[A-Z-]+)", re.IGNORECASE)
_PROHIBITED = "DMI-PROHIBITED"


def measure(data: bytes) -> dict[str, str | None]:
    """``data_mining`` and ``digital_source``: the last part of each term, None where nothing is said.

    Of several different values of Data Mining, one that prohibits counts. In a packet that is not sound XML, a term of
    Data Mining counts wherever it stands, since a writer put it there for this property.
    """
    from curate.measures import xmp

    mining: list[str] = []
    sources: list[str] = []
    for packet in xmp.packets(data):
        plain = _plain(packet)
        if not any(mark in plain for mark in _MARKS):
            continue
        found = xmp.values(packet, (_PLUS, _IPTC))
        mining += [_term(value) for value in found.get(_PLUS, ())]
        sources += [_last(value) for value in found.get(_IPTC, ())]
        if not found:
            mining += [term.upper() for term in xmp.terms(plain, _TERM)]
    prohibited = [term for term in mining if is_prohibited(term)]
    said = {
        DATA_MINING: next(iter([*prohibited, *mining]), None),
        SOURCE: next(iter(sources), None),
    }
    return {column: value and value[:LONGEST] for column, value in said.items()}


def is_prohibited(term: str) -> bool:
    """Whether a value of ``data_mining`` keeps a picture out of a training."""
    return term.upper().startswith(_PROHIBITED)


def _plain(packet: bytes) -> bytes:
    """A packet to search for letters of ASCII; XMP may also be UTF-16, and a JPEG's is UTF-8 always."""
    return packet.replace(b"\0", b"")


def _term(value: str) -> str:
    """The vocabulary's term; also of its label, such as "Prohibited for AI/ML training", which some writers take."""
    found = re.search(r"DMI-[A-Z-]+", value.upper())
    if found:
        return found[0]
    return _PROHIBITED if value.lower().startswith("prohibited") else _last(value)


def _last(value: str) -> str:
    return re.split(r"[/#]", value.rstrip("/"))[-1].strip()


MEASURE = FileMeasure("consent", (DATA_MINING, SOURCE), measure)

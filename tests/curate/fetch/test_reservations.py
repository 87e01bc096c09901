from types import SimpleNamespace

import pytest
from multidict import CIMultiDict

from curate.fetch.reservations import reserved


def headers(*pairs):
    return SimpleNamespace(headers=CIMultiDict(pairs))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "noai",
            "noimageai",
            "noindex",
            "noimageindex",
            "none",
            "NoAI",
            "nofollow, noindex",
            " noai ",
        ),
        *(
            "darkroom: noai",
            "Darkroom: nofollow, noimageai",
            "*: noindex",
            "otherbot: nofollow, darkroom: noai",
        ),
        *(
            "noindex; noai",
            "nofollow noai",
            "noimageai=1",
            "noai: 1",
            "noindex;",
            '"noai"',
            "[noai]",
        ),
        *(
            "unknown-rule: 3, noai",
            "otherbot: noindex, *: noai",
            "otherbot: nofollow; darkroom : noai",
        ),
        *(
            "darkroom: unknown, noai",
            "otherbot: noindex, darkroom: unknown, noai",
            "15:00:00, noai",
        ),
        *("unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", "max-snippet: 5, noai"),
    ],
)
def test_forbidding_rules_are_obeyed(value):
    assert reserved(headers(("x-robots-tag", value)))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "all",
            "index, follow",
            "nofollow, noarchive",
            "otherbot: noindex",
            "otherbot: noindex, noai",
            "otherbot : noindex; noai",
            "other bot: noindex noai",
            "otherbot: unavailable_after: 25 Jun 2030 15:00:00 PST, noai",
            "otherbot: max-snippet: 5, noai",
        ),
        *(
            "darkroom: nofollow, otherbot: noai",
            "noindexed",
            "max-image-preview: none",
            "darkroomy: noai",
        ),
    ],
)
def test_rules_for_others_and_other_rules_do_not_forbid(value):
    assert not reserved(headers(("X-Robots-Tag", value)))


def test_every_occurrence_of_the_header_counts():
    found = headers(("X-Robots-Tag", "otherbot: noindex"), ("x-robots-tag", "nosnippet, noai"))
    assert reserved(found) == "X-Robots-Tag: noai"


@pytest.mark.parametrize(
    ("value", "forbids"),
    [
        *((value, True) for value in ("1", " 1 ", "1; a", "0, 1", '"1"')),
        *((value, False) for value in ("0", "", "10", "0.1")),
    ],
)
def test_reservation_of_text_and_data_mining(value, forbids):
    assert bool(reserved(headers(("TDM-Reservation", value)))) == forbids

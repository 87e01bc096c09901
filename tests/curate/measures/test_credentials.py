"""Content Credentials: what they say of training and of a model is read, and nothing is fetched for it."""

import http.server
import io
import sys
import threading

import pytest

from curate.measures import credentials
from curate.run.schema import UserError

c2pa = pytest.importorskip("c2pa")

from tests.curate.measures.content_credentials import (  # noqa: E402  (needs the package)
    created,
    picture,
    signed,
    training,
)

NOTHING = {"c2pa_training": None, "c2pa_source": None}


@pytest.fixture
def asked():
    """A server on loopback, its address, and the paths that it was asked for."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_assertions_of_a_signed_picture_are_read(kind):
    data = signed(training("notAllowed"), created("digitalCapture"), kind=kind)
    found = credentials.measure(data)
    assert found == {"c2pa_training": "notAllowed", "c2pa_source": "digitalCapture"}


@pytest.mark.parametrize(
    ("assertions", "found"),
    [
        ([training("notAllowed", "ai_training", "c2pa")], "notAllowed"),
        ([training("notAllowed", "data_mining", "c2pa")], "notAllowed"),
        ([training("constrained")], "constrained"),
        ([training("allowed"), training("notAllowed", by="c2pa")], "notAllowed"),
        ([training("allowed")], "allowed"),
        ([training("notAllowed", "ai_inference")], None),  # to look at it is not to train on it
        ([], None),
    ],
)
def test_the_strictest_entry_on_training_counts(assertions, found):
    data = signed(*assertions, created("digitalCapture"))
    assert credentials.measure(data)["c2pa_training"] == found


def test_what_a_picture_was_made_from_counts_as_well():
    drawn = signed(training("notAllowed"), created("trainedAlgorithmicMedia"))
    found = credentials.measure(signed(created("digitalCapture"), made_from=drawn))
    assert found == {"c2pa_training": "notAllowed", "c2pa_source": "trainedAlgorithmicMedia"}


def test_a_picture_that_was_changed_after_it_was_signed_still_says_no():
    data = bytearray(signed(training("notAllowed"), created("digitalCapture")))
    data[-10] ^= 1  # in the pixels
    assert credentials.measure(bytes(data))["c2pa_training"] == "notAllowed"


def test_only_a_file_with_a_manifest_is_given_to_the_library(monkeypatch):
    monkeypatch.setattr(credentials, "read", lambda data: pytest.fail("read"))
    for kind in ("JPEG", "PNG", "WEBP"):
        assert credentials.measure(picture(kind)) == NOTHING


def test_what_only_looks_like_a_manifest_says_nothing():
    found = credentials.measure(picture("JPEG", comment=b"jumb and c2pa"))
    assert found == NOTHING


def test_a_broken_manifest_is_called_unreadable():
    data = signed(training("notAllowed"), created("digitalCapture"))
    place = data.index(b"cawg.training-mining")
    found = credentials.measure(data[:place] + b"\xff" * 40 + data[place + 40 :])
    assert found == {"c2pa_training": "unreadable", "c2pa_source": None}


def test_nothing_is_fetched(asked):
    address, paths = asked
    data, _ = signed(training("notAllowed"), created("digitalCapture"), remote=f"{address}/m.c2pa")
    with pytest.raises(c2pa.C2paError):  # the library does, if it is not told otherwise
        c2pa.Reader("image/jpeg", io.BytesIO(data))
    assert paths == ["/m.c2pa"]
    with pytest.raises(c2pa.C2paError):
        credentials.read(data)
    assert credentials.measure(data + b"jumb c2pa")["c2pa_training"] == "unreadable"
    assert paths == ["/m.c2pa"]


@pytest.mark.parametrize(
    ("section", "key"), [("verify", "remote_manifest_fetch"), ("core", "allowed_network_hosts")]
)
def test_each_of_two_settings_alone_holds_a_fetch_back(asked, monkeypatch, section, key):
    """A release of the library may not know one of them, and takes it without a word then."""
    address, paths = asked
    settings = credentials._OFFLINE
    left = {name: value for name, value in settings[section].items() if name != key}
    monkeypatch.setattr(credentials, "_OFFLINE", settings | {section: left})
    credentials._context.cache_clear()
    data, _ = signed(training("notAllowed"), created("digitalCapture"), remote=f"{address}/m.c2pa")
    with pytest.raises(c2pa.C2paError, match="Remote"):
        credentials.read(data)
    credentials._context.cache_clear()
    assert paths == []


@pytest.mark.parametrize(
    "written",
    [
        {"label": "c2pa.actions", "data": {"actions": 5}},
        {"label": "c2pa.actions", "data": {"actions": [None, {"digitalSourceType": {"a": 1}}]}},
        {"label": "cawg.training-mining", "data": {"entries": [1]}},
        {"label": None, "data": []},
        5,
    ],
)
def test_what_no_standard_knows_does_not_raise(monkeypatch, written):
    monkeypatch.setattr(credentials, "read", lambda data: [{"assertions": [written]}])
    assert credentials.measure(b"jumb c2pa").keys() == NOTHING.keys()


def test_without_the_package_the_message_says_what_to_type(monkeypatch):
    credentials._library.cache_clear()
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(UserError, match="pip install c2pa-python"):
        credentials.measure(picture())
    credentials._library.cache_clear()

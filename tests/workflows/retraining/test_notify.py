"""Who hears how a retraining ended; nothing that goes wrong there goes further."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from curate.run.schema import UserError
from workflows.retraining import notify, tries
from workflows.retraining.config import NotifyConfig
from workflows.retraining.outcome import Outcome

PROMOTED = Outcome("promoted", "“Better” by 3 %.", "mine-0002", "mine-0002").content()


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(tries, "PAUSE_S", 0.001)


@pytest.fixture
def server():
    """A webhook on the loopback that answers by a list of codes, then by 200; None closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            code = self.server.codes.pop(0) if self.server.codes else 200
            if code == "slow":
                time.sleep(0.5)
            elif code == "noise":
                self.wfile.write(b"no such protocol\r\n\r\n")
            elif code:
                self.send_response(code)
                self.end_headers()

        def log_message(self, *_):
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    found.got, found.codes = [], []
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def told(outcome=PROMOTED, **config):
    said = []
    notify.tell(NotifyConfig(**config), outcome, said.append)
    return said


def url(server):
    return f"http://127.0.0.1:{server.server_port}/T0/B1"


@pytest.mark.parametrize("failing", [[], [500, 503], [None, "noise"]])
def test_a_webhook_gets_the_outcome_after_some_tries(server, failing):
    server.codes = [*failing]
    assert told(url=url(server)) == []
    assert server.got == [("/T0/B1", "application/json", PROMOTED)] * (len(failing) + 1)


@pytest.mark.parametrize(("code", "why"), [(500, "Internal Server Error"), ("slow", "timed out")])
def test_one_that_never_answers_is_said_without_its_address(server, code, why):
    server.codes = [code] * 9
    (said,) = told(url=url(server), attempts=2, timeout_s=0.1)
    assert said.startswith("warning: notify.url was not delivered in 2 tries: ")
    assert why in said
    assert "T0" not in said


@pytest.mark.parametrize("bad", ["http://127.0.0.1:9/x", "http://a b/", "http://x:y/"])
def test_one_that_is_not_there_fails_nothing(bad):
    (said,) = told(url=bad, attempts=1, timeout_s=1)
    assert said.startswith("warning: notify.url was not delivered in 1 tries: ")
    assert len(said) > 52


def test_a_command_gets_the_outcome_and_the_sentence(tmp_path):
    command = f'cat > "{tmp_path}/got"; printf %s "$DARKROOM_SENTENCE" > "{tmp_path}/said"'
    assert told(command=command) == []
    assert json.loads((tmp_path / "got").read_bytes()) == PROMOTED
    assert (tmp_path / "said").read_text() == PROMOTED["sentence"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo first >&2; echo no such host >&2; exit 3", "exit code 3 no such host"),
        ("printf '\\377\\033[2J' >&2; exit 1", "exit code 1"),
        ("no_such_program", "exit code 127"),
        ("exec <&-; exit 4", "exit code 4"),
        ("sleep 30 & sleep 30", "it took longer than notify.timeout_s=0.2"),
    ],
)
def test_a_command_that_fails_is_tried_again_and_said(command, why):
    began = time.monotonic()
    (said,) = told(command=command, attempts=2, timeout_s=0.2 if "sleep" in command else 10)
    assert said.startswith(f"warning: notify.command was not delivered in 2 tries: {why}")
    assert "\x1b" not in said
    assert time.monotonic() - began < 20


def test_what_a_slow_command_started_ends_with_it(tmp_path):
    told(command=f"(sleep 1; touch {tmp_path}/late) & wait", attempts=1, timeout_s=0.2)
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_a_sentence_that_no_program_takes_fails_nothing():
    (said,) = told({**PROMOTED, "sentence": "a\0b"}, command="true", attempts=1)
    assert "null byte" in said


def test_who_is_told_of_what(tmp_path):
    for on in ("changes", "all"):
        heard = set()
        for word in (
            *("promoted", "rejected", "undecided", "failed"),
            *("nothing_to_do", "started", "busy", "interrupted"),
        ):
            told({**PROMOTED, "outcome": word}, command=f"touch {tmp_path}/{on}-{word}", on=on)
            heard |= {word} if (tmp_path / f"{on}-{word}").exists() else set()
        quiet = {"nothing_to_do", "started", "busy", "interrupted"} - heard
        assert len(quiet) == (4 if on == "changes" else 0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"url": "hooks.example.org/x"}, "type notify.url=https://..."),
        ({"url": "file:///etc/passwd"}, "is no web address"),
        ({"url": "http://[/x"}, "is no web address"),
        ({"url": "https:///x"}, "is no web address"),
        ({"timeout_s": 0.0}, "notify.timeout_s=0 is out of range"),
        ({"attempts": 0}, "notify.attempts=0 is out of range"),
        ({"on": "none"}, "notify.on=none is out of range; accepted: all, changes"),
    ],
)
def test_settings_that_reach_nobody_are_refused(values, says):
    with pytest.raises(UserError) as refused:
        NotifyConfig(**values)
    assert says in str(refused.value)

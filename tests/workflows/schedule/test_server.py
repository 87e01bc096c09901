"""Dagster is started in the background and ended; without it, what to type is said."""

import importlib.util
import socket
import subprocess
import sys

import pytest

from curate.run.schema import UserError
from workflows.schedule import __main__ as command
from workflows.schedule import server

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_without_dagster_it_says_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["schedule", "start"])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert "make schedule" in capsys.readouterr().err


def test_nothing_to_end(tmp_path):
    assert "is not at work" in server.stop(tmp_path / "absent")
    (tmp_path / "server.pid").write_text("1")  # of a machine that was switched off
    assert "is not at work" in server.stop(tmp_path)


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            server.start(tmp_path, port)


def test_what_does_not_start_is_ended_and_its_last_words_are_shown(tmp_path, stand_for_dagster):
    program = [sys.executable, "-c", "raise SystemExit('no such schedule')"]
    stand_for_dagster(program)
    with pytest.raises(UserError, match="no such schedule"):
        server.start(tmp_path, free_port())
    assert "is not at work" in server.stop(tmp_path)


def test_it_is_started_once_and_ended_with_its_group(tmp_path, monkeypatch, stand_for_dagster):
    """As it would be from a shell in the background, where SIGINT is ignored."""
    program = "import http.server as h, subprocess, sys; subprocess.Popen(sys.argv[2:]); "
    program += (
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), type('', (h.BaseHTTPRequestHandler,), "
    )
    program += "{'do_GET': lambda s: (s.send_response(200), s.end_headers())})).serve_forever()"
    monkeypatch.setattr(server, "STOP_S", 5)
    port = free_port()
    stand_for_dagster([sys.executable, "-c", program, str(port), *SLEEPER])
    said = server.start(tmp_path, port)
    assert f"http://127.0.0.1:{port}" in said
    assert (tmp_path / "dagster.yaml").read_text() == server.SETTINGS.read_text()
    again = server.start(tmp_path, port)
    assert "at work already" in again
    assert f"http://127.0.0.1:{port}" in again
    group = int((tmp_path / "server.pid").read_text().split()[0])
    assert server._is_alive(group)
    assert server.stop(tmp_path) == f"Dagster (process {group}) ended"
    assert not server._is_alive(group)


@pytest.fixture
def stand_for_dagster(monkeypatch):
    """Start another program in its place."""
    popen, started = subprocess.Popen, []

    def use(program):
        def start(command, **kept):
            started.append(popen(program, **kept))
            return started[-1]

        monkeypatch.setattr(subprocess, "Popen", start)

    yield use
    for process in started:
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]

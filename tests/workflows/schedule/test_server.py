"""Dagster is started in the background and ended; without it, what to type is said."""

import importlib.util
import socket
import subprocess
import sys

import pytest

from curate.run.schema import UserError
from workflows.schedule import __main__ as command
from workflows.schedule import server

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


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


def test_what_does_not_start_is_ended_and_its_last_words_are_shown(tmp_path, monkeypatch):
    program = [sys.executable, "-c", "raise SystemExit('no such schedule')"]
    stand_for_dagster(monkeypatch, program)
    with pytest.raises(UserError, match="no such schedule"):
        server.start(tmp_path, free_port())
    assert "is not at work" in server.stop(tmp_path)


def test_it_is_started_once_and_ended_with_its_group(tmp_path, monkeypatch):
    """As it would be from a shell in the background, where SIGINT is ignored."""
    program = "import http.server as h, subprocess, sys; subprocess.Popen(sys.argv[2:]); "
    program += (
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), type('', (h.BaseHTTPRequestHandler,), "
    )
    program += "{'do_GET': lambda s: (s.send_response(200), s.end_headers())})).serve_forever()"
    port = free_port()
    stand_for_dagster(monkeypatch, [sys.executable, "-c", program, str(port), *SLEEPER])
    said = server.start(tmp_path, port)
    assert f"http://127.0.0.1:{port}" in said
    assert (tmp_path / "dagster.yaml").read_text() == server.SETTINGS.read_text()
    assert "at work already" in server.start(tmp_path, port)
    group = int((tmp_path / "server.pid").read_text())
    assert server._is_alive(group)
    assert server.stop(tmp_path) == f"Dagster (process {group}) ended"
    assert not server._is_alive(group)


def stand_for_dagster(monkeypatch, program):
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kept: popen(program, **kept))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]

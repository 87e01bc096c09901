"""What a server's answers become, and to whom the login goes."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.workflows.retraining import fake_mlflow
from workflows.retraining import mlflow_server
from workflows.retraining.mlflow_server import Refused, Server, Unreachable


@pytest.fixture
def server():
    with fake_mlflow.served() as found:
        yield found


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_may_pass(server, status):
    server.status = status
    with pytest.raises(Unreachable, match=f"HTTP {status}, "):
        Server(server.url).get("experiments/get-by-name", experiment_name="x")


def test_a_refusal_keeps_mlflows_word(server):
    with pytest.raises(Refused, match="HTTP 404, so says MLflow") as found:
        Server(server.url).get("experiments/get-by-name", experiment_name="x")
    assert found.value.code == "RESOURCE_DOES_NOT_EXIST"


def test_another_program_is_no_mlflow(server):
    server.status = 200
    with pytest.raises(Refused, match="is there an MLflow server"):
        Server(server.url).post("runs/create", {})


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "http://a b", "http://x:y", "http://" + "a" * 70]
)
def test_nobody_there(address):
    with pytest.raises(Unreachable, match=r"."):
        Server(address).post("runs/create", {})


def test_a_slow_one(server, monkeypatch):
    monkeypatch.setattr(mlflow_server, "TIMEOUT_S", 0.1)
    server.answer = lambda path, given: threading.Event().wait(0.5) or {}
    with pytest.raises(Unreachable, match="timed out"):
        Server(server.url).post("runs/create", {})


def test_files_of_any_name(server, tmp_path):
    (tmp_path / "ä b#?.bin").write_bytes(b"\0" * 70_000)
    Server(f"{server.url}/").upload("1/2/artifacts/export/ä b#?.bin", tmp_path / "ä b#?.bin")
    assert server.files == {"1/2/artifacts/export/ä b#?.bin": b"\0" * 70_000}


def test_a_redirection_to_another_host_gets_no_login(server, monkeypatch):
    """``localhost`` is another host than ``127.0.0.1``."""

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.got = self.headers["Authorization"]
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}{self.path}")
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim")
    first = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=first.handle_request)
    thread.start()
    server.experiments["x"] = "1"
    Server(f"http://127.0.0.1:{first.server_port}").get(
        "experiments/get-by-name", experiment_name="x"
    )
    thread.join()
    first.server_close()
    assert first.got == "Bearer geheim"
    assert "Authorization" not in server.headers

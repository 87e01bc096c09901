"""As much of an MLflow server as a registry needs, on the loopback; its answers and refusals are those of MLflow 3.17."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

API, ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"


class Answer(Exception):
    """A refusal: HTTP status and MLflow's word."""


class FakeMlflow(HTTPServer):
    """Its state, and how it misbehaves.

    Attributes:
        asked: method and path of each request. headers: of the last one.
        fails_at: number of the request, from 1, that gets no answer: before or after it was done.
        status: of all answers from now on, in place of a real one.
        login: who is let in, ``user:password`` or ``Bearer token``; "" for everybody.
        page: versions in one answer of a search.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.fails_at: tuple[int, str] | None = None
        self.status = 0
        self.login = ""
        self.page = 100
        self.artifact_root = "mlflow-artifacts:"
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.models: dict[str, dict[str, str]] = {}
        self.versions: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def champion(self, model: str = "mine", alias: str = "champion") -> str | None:
        """The run that an alias points to."""
        number = self.models.get(model, {}).get(alias)
        found = [v for v in self.versions if (v["name"], v["version"]) == (model, number)]
        return tags(found[0])["darkroom.run"] if found else None

    def answer(self, path: str, given: dict[str, Any]) -> dict[str, Any]:
        """What MLflow does and says."""
        return getattr(self, re.sub(r"\W", "_", path))(given)

    def experiments_get_by_name(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["experiment_name"] not in self.experiments:
            raise Answer(404, "RESOURCE_DOES_NOT_EXIST")
        return {"experiment": {"experiment_id": self.experiments[given["experiment_name"]]}}

    def experiments_create(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["name"] in self.experiments:
            raise Answer(400, "RESOURCE_ALREADY_EXISTS")
        self.experiments[given["name"]] = str(len(self.experiments) + 1)
        return {}

    def runs_create(self, given: dict[str, Any]) -> dict[str, Any]:
        assert given["experiment_id"] in self.experiments.values()
        run_id = f"{len(self.runs):032x}"
        uri = f"{self.artifact_root}/{given['experiment_id']}/{run_id}/artifacts"
        info = {"run_id": run_id, "artifact_uri": uri, "status": "RUNNING"}
        self.runs[run_id] = {"info": info, "data": {"tags": given["tags"]}}
        return {"run": self.runs[run_id]}

    def runs_search(self, given: dict[str, Any]) -> dict[str, Any]:
        key, value = re.fullmatch(r"tags\.`(.+)` = '(.+)'", given["filter"]).groups()
        found = [run for run in self.runs.values() if tags(run["data"]).get(key) == value]
        return {"runs": found} if found else {}

    def runs_log_batch(self, given: dict[str, Any]) -> dict[str, Any]:
        self.runs[given["run_id"]]["metrics"] = {m["key"]: m["value"] for m in given["metrics"]}
        return {}

    def runs_update(self, given: dict[str, Any]) -> dict[str, Any]:
        self.runs[given["run_id"]]["info"]["status"] = given["status"]
        return {}

    def registered_models_create(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["name"] in self.models:
            raise Answer(400, "RESOURCE_ALREADY_EXISTS")
        self.models[given["name"]] = {}
        return {}

    def model_versions_search(self, given: dict[str, Any]) -> dict[str, Any]:
        name = re.fullmatch(r"name=(['\"])(.+)\1", given["filter"])[2]
        found = [each for each in self.versions if each["name"] == name]
        start = int(given.get("page_token", 0))
        page = {"model_versions": found[start : start + self.page]} if found else {}
        more = start + self.page < len(found)
        return page | ({"next_page_token": str(start + self.page)} if more else {})

    def model_versions_create(self, given: dict[str, Any]) -> dict[str, Any]:
        root = self.runs[given["run_id"]]["info"]["artifact_uri"]
        if given["name"] not in self.models:
            raise Answer(404, "RESOURCE_DOES_NOT_EXIST")
        if not given["source"].startswith(f"{root}/"):
            raise Answer(400, "INVALID_PARAMETER_VALUE")
        number = str(1 + sum(each["name"] == given["name"] for each in self.versions))
        self.versions.append({**given, "version": number, "status": "READY"})
        return {"model_version": self.versions[-1]}

    def registered_models_alias(self, given: dict[str, Any]) -> dict[str, Any]:
        self.models[given["name"]][given["alias"]] = given["version"]
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: FakeMlflow

    def do_GET(self) -> None:
        found = urlsplit(self.path)
        self._answer(found.path, dict(parse_qsl(found.query)))

    def do_POST(self) -> None:
        self._answer(self.path, json.loads(self._body()))

    def do_PUT(self) -> None:
        self._answer(self.path, self._body())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, path: str, given: Any) -> None:
        server = self.server
        server.asked.append(f"{self.command} {path}")
        server.headers = dict(self.headers.items())
        at, when = server.fails_at or (0, "")
        fails = len(server.asked) == at
        if fails and when == "before":
            return
        status, content = self._found(path, given)
        if fails:
            return
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _found(self, path: str, given: Any) -> tuple[int, Any]:
        if self.server.status:
            return self.server.status, b"<html>no such page"
        if self.server.login and not self._is_let_in():
            return 401, b"You are not authenticated."
        if self.command == "PUT":
            self.server.files[unquote(path.removeprefix(ARTIFACTS))] = given
            return 200, {}
        try:
            return 200, self.server.answer(path.removeprefix(API), given)
        except Answer as refused:
            return refused.args[0], {"error_code": refused.args[1], "message": "so says MLflow"}

    def _is_let_in(self) -> bool:
        login = self.server.login
        basic = f"Basic {base64.b64encode(login.encode()).decode()}"
        return self.headers["Authorization"] in (basic, login)

    def log_message(self, *_: Any) -> None:
        pass


def tags(entry: dict[str, Any]) -> dict[str, str]:
    """By key."""
    return {tag["key"]: tag["value"] for tag in entry["tags"]}


@contextmanager
def served() -> Iterator[FakeMlflow]:
    """One at work in a thread."""
    found = FakeMlflow()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()

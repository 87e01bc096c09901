"""Requests to an MLflow server, by its REST API: its packages do not install beside ours."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

from curate.run.printable import one_line

TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 600.0  # the answer comes when the server has stored the file
ADDRESSES = ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI")
_FOR_A_MOMENT = (408, 429, 500, 502, 503, 504)  # HTTP statuses after which a later try may work
_SHOWN = 300  # characters of what a server says


class Unreachable(Exception):
    """No answer, or one of a server in trouble; a later try may work."""


class Refused(Exception):
    """The server's answer, which another try would not change.

    Attributes:
        code: MLflow's word for it, such as ``RESOURCE_ALREADY_EXISTS``; "" where it has none.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """One by its address, which may hold a user and a password."""

    def __init__(self, address: str) -> None:
        self.url = without_login(address)
        self._authorization = _authorization(address)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The answer to a question."""
        return self._json(Request(f"{self.url}/api/2.0/mlflow/{path}?{urlencode(query)}"))

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a change."""
        headers = {"Content-Type": "application/json"}
        body = json.dumps(content).encode()
        return self._json(Request(f"{self.url}/api/2.0/mlflow/{path}", body, headers))

    def upload(self, path: str, file: Path) -> None:
        """Store a file among the server's artifacts."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
        }
        url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        with file.open("rb") as content:
            self._send(Request(url, content, headers, method="PUT"), UPLOAD_TIMEOUT_S)

    def _json(self, request: Request) -> dict[str, Any]:
        try:
            found = json.loads(self._send(request, TIMEOUT_S))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused("", "the answer is not MLflow's; is there an MLflow server?")
        return found

    def _send(self, request: Request, timeout_s: float) -> bytes:
        request.add_header("User-Agent", "darkroom")
        if self._authorization:  # not for another host, to which a server may point
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with urlopen(request, timeout=timeout_s) as said:
                return said.read()
        except HTTPError as error:
            with error:
                code, message = _said(error)
            if error.code in _FOR_A_MOMENT:
                raise Unreachable(message) from error
            raise Refused(code, message) from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", "") or error
            raise Unreachable(one_line(str(reason)) or type(error).__name__) from error


def without_login(address: str) -> str:
    """An address as it may be written down.

    >>> without_login("https://me:secret@mlflow.example.org:5000/team/?x=1")
    'https://mlflow.example.org:5000/team'
    """
    found = urlsplit(address)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path.rstrip('/')}"


def with_login(url: str) -> str:
    """An address that was written down, as the environment has it where that names the same server."""
    for address in filter(None, map(os.environ.get, ADDRESSES)):
        if without_login(address) == url:
            return address
    return url


def _authorization(address: str) -> str:
    """The header's value, from the address or MLflow's variables; "" where none of them says who asks."""
    found = urlsplit(address)
    user = unquote(found.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(found.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user and password:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    return f"Bearer {token}" if token else ""


def _said(error: HTTPError) -> tuple[str, str]:
    """MLflow's word for what went wrong, and a sentence."""
    try:
        content = json.loads(error.read())
        code, message = str(content["error_code"]), str(content["message"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        code, message = "", str(error.reason)
    if error.code in (401, 403):
        message += (
            "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    return code, f"HTTP {error.code}, {one_line(message[:_SHOWN])}"

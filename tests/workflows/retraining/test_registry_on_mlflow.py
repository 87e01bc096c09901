"""The registry on a real MLflow server: ``DARKROOM_MLFLOW=FOLDER/bin/mlflow`` names one's command to the slow test."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from curate.run import cli
from workflows import promote
from workflows.retraining import registry, tries
from workflows.retraining.config import MlflowConfig, RegistryConfig

VARIABLE = "DARKROOM_MLFLOW"
MLFLOW = os.environ.get(VARIABLE, "")
START_S = 120
LOADED = """
import sys
from pathlib import Path
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
folder = Path(mlflow.artifacts.download_artifacts("models:/mine@champion", dst_path=sys.argv[2]))
print(next(folder.rglob("*.safetensors")).read_bytes().hex())
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MLFLOW, reason=f"{VARIABLE} names no mlflow command"),
]


class Mlflow:
    """A server with a database and a folder of its own, which can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def up(self):
        words = f"server --host 127.0.0.1 --port {self.port} --workers 1 --backend-store-uri sqlite:///m.db"
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [MLFLOW, *words.split(), "--artifacts-destination", "files"],
                cwd=self.folder,
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            end = time.monotonic() + START_S
            while not self._answers():
                assert process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end, "it does not answer"
                time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=5) as said:
                return said.status == 200
        except (URLError, OSError):
            return False

    def asked(self, path: str):
        with urlopen(f"{self.url}/api/2.0/mlflow/{path}", timeout=30) as said:
            return json.loads(said.read())

    def shows(self):
        """The run of each version, and to which version the alias points."""
        model = self.asked("registered-models/get?name=mine")["registered_model"]
        (alias,) = model["aliases"]
        found = self.asked("model-versions/search?filter=name%3D%27mine%27")["model_versions"]
        runs = {}
        for version in sorted(found, key=lambda each: int(each["version"])):
            tags = {tag["key"]: tag["value"] for tag in version["tags"]}
            runs[version["version"]] = tags["darkroom.run"]
        print(f"MLflow shows {runs}, {alias['alias']} is version {alias['version']}")
        return runs, runs[alias["version"]]


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "mlflow"
    folder.mkdir()
    return Mlflow(folder)


def test_promote_promote_back_away_and_up_again(team, server, monkeypatch, capsys):
    monkeypatch.setattr(tries, "PAUSE_S", 0.1)
    config = RegistryConfig(MlflowConfig(url=server.url))

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["promote", *arguments, "--root", str(team.root)])
        cli.run(promote.main)

    with server.up():
        team.retrain(registry=config)
        assert server.shows() == ({"1": "mine-0001"}, "mine-0001")
        team.add("e")
        team.retrain(registry=config)
        both = {"1": "mine-0001", "2": "mine-0002"}
        assert server.shows() == (both, "mine-0002")
        loaded(server, team, "mine-0002")
        command("--rollback")
        assert server.shows() == (both, "mine-0001")
        loaded(server, team, "mine-0001")
        (team.series.folder / registry.FILE).unlink()  # all that is known of it here
        team.retrain(registry=config)
        assert server.shows() == (both, "mine-0001")
    team.add("f")
    assert team.retrain(registry=config).outcome == "promoted"
    assert team.current() == "mine-0003"
    with server.up():
        assert server.shows() == (both, "mine-0001")
        assert team.retrain(registry=config).outcome == "nothing_to_do"
        assert server.shows() == (both | {"3": "mine-0003"}, "mine-0003")
        loaded(server, team, "mine-0003")
    said = capsys.readouterr()
    assert said.err.count("warning: ") == 1
    assert "does not show mine-0003 as mine@champion: [Errno 111] Connection refused" in said.err
    with capsys.disabled():
        print()
        print(*(line for line in said.out.splitlines() if "MLflow" in line or "@" in line), said.err, sep="\n")  # fmt: skip


def loaded(server, team, run):
    """MLflow's own client fetches the weights that the run exported."""
    target = server.folder / f"loaded-{run}"
    target.mkdir()
    python = Path(MLFLOW).with_name("python")
    done = subprocess.run(
        [python, "-c", LOADED, server.url, str(target)],
        capture_output=True,
        text=True,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    weights = team.root / run / "finetune" / "export" / "weights.safetensors"
    assert bytes.fromhex(done.stdout.split()[-1]) == weights.read_bytes()
    print(f"MLflow's client loads {run}: {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}")

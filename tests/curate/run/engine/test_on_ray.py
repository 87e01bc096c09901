"""What a cluster of Ray is asked for and told when it is connected to; a stand-in takes Ray's place."""

import os
import sys
from types import ModuleType

import pytest

from curate.run.engine import config
from curate.run.engine.config import EngineConfig
from curate.run.engine.on_ray import on_ray
from curate.run.engine.processes import ENVIRONMENT
from curate.run.schema import UserError


class Ray(ModuleType):
    """Has nodes with so many GPUs; a number below 0 is of one that is gone."""

    def __init__(self, gpus=()):
        super().__init__("ray")
        self.gpus, self.options, self.is_connected = gpus, {}, False

    def init(self, **options):
        self.options, self.is_connected = options, True

    def shutdown(self):
        self.is_connected = False

    def nodes(self):
        return [
            {"Alive": gpus >= 0, "Resources": {"CPU": 4.0, **({"GPU": float(abs(gpus))} if gpus else {})}}
            for gpus in self.gpus
        ]  # fmt: skip

    def cluster_resources(self):
        return {
            "CPU": 4.0 * len(self.gpus),
            "GPU": float(sum(gpus for gpus in self.gpus if gpus > 0)),
        }


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setattr(config, "find_spec", lambda name: True)
    found = Ray((0,))
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


@pytest.mark.parametrize("address", [None, "auto"])
@pytest.mark.parametrize(
    ("gpus", "wanted", "typed"),
    [
        ((0, 0), 1.0, "0 GPUs; type engine.gpus_per_worker=0"),
        ((0,), 0.5, "0 GPUs; type engine.gpus_per_worker=0"),
        ((1, 1, 1), 2.0, "1 GPUs; type engine.gpus_per_worker=1, or engine.gpus_per_worker=0"),
        ((-8, 1), 2.0, "1 GPUs; type engine.gpus_per_worker=1, or engine.gpus_per_worker=0"),
    ],
)
def test_gpus_that_no_node_has_are_refused(ray, tmp_path, address, gpus, wanted, typed):
    ray.gpus = gpus
    chosen = EngineConfig(name="ray", gpus_per_worker=wanted, address=address)
    with (
        pytest.raises(UserError, match=rf"^engine\.gpus_per_worker={wanted:g}, and ") as said,
        on_ray(chosen, tmp_path / "ray", tmp_path),
    ):
        pass
    assert typed in str(said.value)
    assert ("of the nodes of engine.address=auto" in str(said.value)) == (address is not None)
    assert not ray.is_connected


@pytest.mark.parametrize("wanted", [0.0, 0.5, 2.0])
def test_gpus_that_a_node_has_are_taken(ray, tmp_path, wanted):
    ray.gpus = (0, 2)
    chosen = EngineConfig(name="ray", gpus_per_worker=wanted, address="auto")
    with on_ray(chosen, tmp_path / "ray", tmp_path):
        assert ray.options["address"] == "auto"


def test_nodes_are_told_where_an_object_store_is_but_no_key(ray, tmp_path, monkeypatch):
    told = {
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_ENDPOINT_URL_S3": "http://store:9001",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_PROFILE": "reader",
        "FSSPEC_S3_ANON": "true",
        "HF_HUB_OFFLINE": "1",
    }
    secret = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
    monkeypatch.delenv("FSSPEC_S3_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "")
    for name, value in {**told, **dict.fromkeys(secret, "secret")}.items():
        monkeypatch.setenv(name, value)
    with on_ray(EngineConfig(name="ray", address="auto"), tmp_path / "ray", tmp_path):
        assert ray.options["runtime_env"] == {"env_vars": {**ENVIRONMENT, **told}}


@pytest.mark.parametrize(
    ("address", "typed", "used"),
    [(None, None, "token"), (None, "disabled", "disabled"), ("auto", None, None)],
)
def test_a_cluster_of_ones_own_asks_for_a_token_unless_set_otherwise(
    ray, tmp_path, monkeypatch, address, typed, used
):
    monkeypatch.setenv("RAY_AUTH_MODE", "before")  # so that it is put back
    if typed is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    else:
        monkeypatch.setenv("RAY_AUTH_MODE", typed)
    with on_ray(EngineConfig(name="ray", address=address), tmp_path / "ray", tmp_path):
        assert os.environ.get("RAY_AUTH_MODE") == used


def test_an_address_with_a_password_stays_here(ray, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example.org")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store:9001")
    with on_ray(EngineConfig(name="ray", address="auto"), tmp_path / "ray", tmp_path):
        given = ray.options["runtime_env"]["env_vars"]
    assert given["AWS_ENDPOINT_URL_S3"] == "http://store:9001"
    assert "HF_ENDPOINT" not in given
    said = "".join(capsys.readouterr())
    assert "HF_ENDPOINT holds a user or a password" in said
    assert "secret" not in said

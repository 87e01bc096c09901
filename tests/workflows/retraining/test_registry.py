"""The registry follows the pointer: versions, the alias, after kills and while the server is away."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from curate.run import cli
from curate.run.schema import UserError
from tests.workflows.retraining import fake_mlflow
from workflows import promote
from workflows.retraining import promotion, registry, tries, unchanged
from workflows.retraining.config import MlflowConfig, RegistryConfig
from workflows.retraining.registry import target
from workflows.retraining.series import Series


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.setattr(tries, "PAUSE_S", 0.001)
    for name in ("REGISTRY_URI", *(f"TRACKING_{end}" for end in ("URI", "USERNAME", "PASSWORD", "TOKEN"))):  # fmt: skip
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture
def server():
    with fake_mlflow.served() as found:
        yield found


@pytest.fixture
def mlflow(team, server):
    """A team with a registry: each start of ``retrain()`` follows."""

    def retrain(**config):
        mlflow = MlflowConfig(**{"url": server.url, **config})
        return team.retrain(registry=RegistryConfig(mlflow))

    retrain.server, retrain.team = server, team
    return retrain


@pytest.fixture
def command(monkeypatch, team):
    """``python -m workflows.promote`` as typed."""

    def start(*arguments):
        monkeypatch.setattr("sys.argv", ["promote", *arguments, "--root", str(team.root)])
        cli.run(promote.main)

    return start


def two(mlflow):
    mlflow()
    mlflow.team.add("e")
    mlflow()


def state(team):
    return json.loads((team.series.folder / registry.FILE).read_bytes())


def test_a_promotion_makes_a_version_with_its_files_and_figures(mlflow, capsys):
    mlflow()
    (version,) = mlflow.server.versions
    export = mlflow.team.root / "mine-0001" / "finetune" / "export"
    weights = (export / "weights.safetensors").read_bytes()
    record = mlflow.team.series.records()[0]
    found = fake_mlflow.tags(version)
    manifest = found.pop("darkroom.data_fingerprint")
    assert found == {
        "darkroom.series": "mine",
        "darkroom.run": "mine-0001",
        "darkroom.weights_sha256": hashlib.sha256(weights).hexdigest(),
        "darkroom.verdict": record.sentence,
        "darkroom.export": export.as_uri(),
    }
    lineage = json.loads((mlflow.team.root / "mine-0001" / "lineage.json").read_bytes())
    assert manifest == lineage["data"]["mine-0001"]["shards"]["digest"]
    assert version["description"] == record.sentence
    assert mlflow.server.champion() == "mine-0001"
    (run,) = mlflow.server.runs.values()
    assert run["info"]["status"] == "FINISHED"
    assert version["source"] == f"{run['info']['artifact_uri']}/export"
    files = {name.rpartition("/export/")[2]: data for name, data in mlflow.server.files.items()}
    assert files == {"weights.safetensors": weights}
    change = record.summary["evaluation"]["metrics"]["heldout_change"]
    assert run["metrics"]["heldout_change"] == change["value"]
    assert run["metrics"]["heldout_change_high"] == change["high"]
    assert "registry  mine@champion is version 1, mine-0001\n" in capsys.readouterr().out


def test_each_promotion_its_version_and_back_moves_the_alias(mlflow, command, capsys):
    two(mlflow)
    server = mlflow.server
    assert [fake_mlflow.tags(v)["darkroom.run"] for v in server.versions] == ["mine-0001", "mine-0002"]  # fmt: skip
    assert server.champion() == "mine-0002"
    command("--rollback")
    assert (server.champion(), len(server.versions)) == ("mine-0001", 2)
    assert "registry  mine@champion is version 1, mine-0001\n" in capsys.readouterr().out
    command("mine-0002")
    assert (server.champion(), len(server.versions)) == ("mine-0002", 2)


def test_a_rejected_run_and_nothing_to_do_ask_nothing(mlflow):
    mlflow()
    asked = len(mlflow.server.asked)
    assert mlflow().outcome == "nothing_to_do"
    mlflow.team.commands.gate = "failed"
    mlflow.team.add("e")
    assert mlflow().outcome == "rejected"
    assert len(mlflow.server.asked) == asked
    assert mlflow.server.champion() == "mine-0001"


def test_one_that_is_asked_for_later_gets_the_promoted_run(mlflow):
    mlflow.team.retrain()
    assert mlflow().outcome == "nothing_to_do"
    assert mlflow.server.champion() == "mine-0001"
    assert mlflow(model="ours", alias="live").outcome == "nothing_to_do"
    assert mlflow.server.champion("ours", "live") == "mine-0001"
    mlflow.team.retrain()
    assert not (mlflow.team.series.folder / registry.FILE).exists()


def test_one_that_cannot_be_reached_is_made_up_for(mlflow, command, capsys, monkeypatch):
    """The promotion stands; the quick look is not enough until the registry shows it."""
    server, team = mlflow.server, mlflow.team
    server.status = 503
    assert mlflow().outcome == "promoted"
    err = capsys.readouterr().err
    assert (
        f"warning: {server.url} does not show mine-0001 as mine@champion: HTTP 503, Service" in err
    )
    assert len(server.asked) == registry.ATTEMPTS
    monkeypatch.chdir(team.root.parent)
    look = unchanged._is_registered
    assert not look(team.series.folder)
    assert mlflow().outcome == "nothing_to_do"
    server.status = 0
    assert mlflow().outcome == "nothing_to_do"
    assert server.champion() == "mine-0001"
    assert look(team.series.folder)
    team.add("e")
    mlflow()
    server.status = 500
    command("--rollback")
    assert (team.current(), server.champion()) == ("mine-0001", "mine-0002")
    assert not look(team.series.folder)
    server.status = 0
    mlflow()
    assert (server.champion(), len(server.versions)) == ("mine-0001", 2)


def test_a_look_says_that_a_start_would_make_up_for_it(mlflow, capsys):
    """A scheduler starts only what has something to do."""
    server = mlflow.server
    server.status = 503
    mlflow()
    looked = RegistryConfig(MlflowConfig(url=server.url))
    asked = len(server.asked)
    found = mlflow.team.retrain(registry=looked, why=True)
    behind = f"{server.url} does not show mine-0001 as mine@champion yet"
    assert (found.outcome, found.changes) == ("would_start", (behind,))
    assert f"registry  {behind}\n" in capsys.readouterr().out
    assert len(server.asked) == asked
    server.status = 0
    mlflow()
    assert mlflow.team.retrain(registry=looked, why=True).outcome == "nothing_to_do"


def test_back_and_forth_while_it_is_away_ends_in_step(mlflow, command, monkeypatch):
    two(mlflow)
    server = mlflow.server
    server.fails_at = (len(server.asked) + 2, "after")  # the alias is moved, and nobody hears of it
    monkeypatch.setattr(registry, "ATTEMPTS", 1)
    command("--rollback")
    assert (server.champion(), state(mlflow.team)["export"]) == ("mine-0001", None)
    server.fails_at = None
    server.status = 500
    command("mine-0002")
    server.status = 0
    mlflow()
    assert (server.champion(), mlflow.team.current()) == ("mine-0002", "mine-0002")


@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_off_at_any_request_it_makes_no_second_version(mlflow, monkeypatch, when):
    monkeypatch.setattr(registry, "ATTEMPTS", 1)
    server, series = mlflow.server, mlflow.team.series
    mlflow()
    undisturbed = (server.files, len(server.runs), len(server.versions))
    requests = len(server.asked)
    assert requests > 8
    for number in range(1, requests + 1):
        (series.folder / registry.FILE).unlink()
        with fake_mlflow.served() as other:
            where = registry.Target(other.url, "mine", "champion")
            other.fails_at = (number, when)
            registry.follow(series, where, print)
            assert state(mlflow.team)["export"] is None
            registry.follow(series, where, print)
            assert (other.files, len(other.runs), len(other.versions)) == undisturbed, number
            assert other.champion() == "mine-0001"
            assert state(mlflow.team)["export"] == "mine-0001/finetune/export"


def test_the_same_run_with_other_weights_is_another_version(mlflow):
    mlflow()
    export = mlflow.team.root / "mine-0001" / "finetune" / "export"
    (export / "weights.safetensors").write_bytes(b"another training under the same name")
    (mlflow.team.series.folder / registry.FILE).unlink()
    mlflow()
    assert [v["version"] for v in mlflow.server.versions] == ["1", "2"]
    assert len(mlflow.server.runs) == 2


def test_a_version_is_found_on_a_later_page(mlflow):
    two(mlflow)
    mlflow.server.page = 1
    (mlflow.team.series.folder / registry.FILE).unlink()
    mlflow()
    assert (mlflow.server.champion(), len(mlflow.server.versions)) == ("mine-0002", 2)


def test_a_server_that_keeps_files_elsewhere_is_said(mlflow, capsys):
    mlflow.server.artifact_root = "s3://bucket/mlflow"
    mlflow()
    err = capsys.readouterr().err
    assert "it keeps files in s3://bucket/mlflow/1/" in err
    assert "--serve-artifacts" in err
    assert mlflow.server.versions == []


def test_a_gone_export_is_said(mlflow, capsys):
    mlflow.team.retrain()
    shutil.rmtree(mlflow.team.root / "mine-0001" / "finetune" / "export")
    mlflow()
    assert "finetune/export is gone. The promotion holds" in capsys.readouterr().err


SECRETS = {
    "in the address": ("me:gehe%C3%ADm", {}),
    "in variables": (
        "",
        {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "geheím"},
    ),
    "a token": ("", {"MLFLOW_TRACKING_TOKEN": "geheím".encode().hex()}),
}


@pytest.mark.parametrize("case", SECRETS)
def test_secrets_open_the_server_and_lie_in_no_file(mlflow, capsys, monkeypatch, case):
    login, variables = SECRETS[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = mlflow.server
    token = variables.get("MLFLOW_TRACKING_TOKEN")
    server.login = f"Bearer {token}" if token else "me:geheím"
    mlflow(url=server.url.replace("//", f"//{login}@") if login else server.url)
    assert server.champion() == "mine-0001"
    for path in Path(mlflow.team.root).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in ("geheím", "gehe%C3%ADm", "geheím".encode().hex()):
                assert secret.encode() not in content, path
    said = capsys.readouterr()
    assert "gehe" not in said.out + said.err


def test_without_them_it_says_what_to_set(mlflow, capsys, command, monkeypatch):
    server = mlflow.server
    server.login = "me:geheim"
    mlflow()
    assert len(server.asked) == 1  # another try would change nothing
    assert "HTTP 401, Unauthorized; set MLFLOW_TRACKING_USERNAME" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url.replace("//", "//me:geheim@"))
    command("mine-0001")  # by hand, the variable of the same server counts
    assert server.champion() == "mine-0001"


def test_what_the_variables_say(monkeypatch):
    series = Series(Path("runs"), "mine")
    assert target(MlflowConfig(), series) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert target(MlflowConfig(), series) is None
    found = target(MlflowConfig(model="ours"), series)
    assert found.content() == {"url": "http://tracking:5000", "model": "ours", "alias": "champion"}
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://registry/x")
    assert target(MlflowConfig(model="ours"), series).url == "https://registry/x"
    found = target(MlflowConfig(url="http://h"), series)
    assert (found.url, found.model) == ("http://h", "mine")


@pytest.mark.parametrize(
    ("values", "environment", "says"),
    [
        ({"model": "x"}, {}, "of which server? Type registry.mlflow.url=http://HOST:5000"),
        ({"url": "sqlite:///x.db"}, {}, "registry.mlflow.url=sqlite:///x.db is no web address"),
        ({"url": "ftp://me:geheim@h"}, {}, "registry.mlflow.url=h is no web address"),
        (
            {"model": "x"},
            {"MLFLOW_TRACKING_URI": "databricks"},
            "MLFLOW_TRACKING_URI=databricks is",
        ),
        ({"url": "http://h", "model": "a/b"}, {}, "registry.mlflow.model=a/b is out of range"),
        ({"url": "http://h", "alias": "latest"}, {}, "registry.mlflow.alias=latest is out of"),
        ({"url": "http://h", "alias": "V12"}, {}, "registry.mlflow.alias=V12 is out of range"),
        ({"url": "http://h", "alias": "a b"}, {}, "registry.mlflow.alias=a b is out of range"),
    ],
)
def test_settings_that_no_server_takes_are_refused(monkeypatch, values, environment, says):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        target(MlflowConfig(**values), Series(Path("runs"), "mine"))
    assert says in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_several_files_of_weights_as_sha256sum_lists_them(tmp_path):
    for name, content in (("unet/a.safetensors", "1"), ("vae/b.safetensors", "2"), ("c.json", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    listed = "".join(
        f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n"
        for name, content in (("unet/a.safetensors", "1"), ("vae/b.safetensors", "2"))
    )
    assert registry.weights_sha256(tmp_path) == hashlib.sha256(listed.encode()).hexdigest()


def test_a_move_that_was_killed_is_followed_at_the_next_start(mlflow):
    two(mlflow)
    promotion.roll_back(mlflow.team.series, print)  # and killed there
    assert not unchanged._is_registered(mlflow.team.series.folder)
    mlflow()
    assert mlflow.server.champion() == "mine-0001"

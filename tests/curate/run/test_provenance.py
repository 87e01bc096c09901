"""The configuration that a run keeps: resolved, without secrets, the same bytes every time."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from curate.run import overrides
from curate.run.provenance import (
    curate_command,
    is_damaged,
    provenance,
    read_config,
    redacted,
    write_config,
)


@dataclass
class Hub:
    token: str | None = "hf_abc"
    name: str = "x"


@dataclass
class Config:
    hub: Hub = field(default_factory=Hub)
    hubs: list[dict[str, str]] = field(default_factory=lambda: [{"api_key": "s3cr3t", "keys": "a"}])


def test_secrets_stay_out(tmp_path):
    write_config(tmp_path / "config.yaml", Config())
    text = (tmp_path / "config.yaml").read_text()
    assert "hf_abc" not in text
    assert "s3cr3t" not in text
    content = OmegaConf.load(tmp_path / "config.yaml")
    assert content.hub == {"token": "***", "name": "x"}
    assert content.hubs[0]["keys"] == "a"
    assert "torch" in content.provenance.packages
    assert redacted({"password": None}) == {"password": None}


def test_the_same_bytes_every_time(tmp_path):
    for name in ("one", "other"):
        write_config(tmp_path / name, Config())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert provenance() == provenance()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"- a list", b"", b"${x}: y"])
def test_what_is_no_configuration_reads_as_none(tmp_path, content):
    path = tmp_path / "config.yaml"
    assert read_config(path) == {}
    path.write_bytes(content)
    assert read_config(path) in ({}, {"${x}": "y"})


def test_what_was_written_is_read(tmp_path):
    write_config(tmp_path / "config.yaml", Config())
    assert read_config(tmp_path / "config.yaml")["hub"] == {"token": "***", "name": "x"}


@pytest.fixture
def curated(tmp_path):
    """The folder of a run that was begun by a command with these arguments."""

    def begin(*arguments, root="runs"):
        overrides.remember(arguments)
        write_config(tmp_path / root / "mine" / "curate" / "config.yaml", Config())
        return tmp_path / root / "mine"

    return begin


def test_the_command_line_is_kept_as_it_was_typed_but_for_secrets(curated):
    typed = ["dataset=coco", "dataset.root=/a, b", "++hub.token=hf_abc", "experiment=x.yaml"]
    run_dir = curated(*typed)
    path = run_dir / "curate" / "config.yaml"
    assert read_config(path)["provenance"]["overrides"] == [
        "dataset=coco", "dataset.root=/a, b", "++hub.token=***", "experiment=x.yaml",
    ]  # fmt: skip
    assert "hf_abc" not in path.read_text()
    once = path.read_bytes()
    assert (curated(*typed) / "curate" / "config.yaml").read_bytes() == once


def test_what_no_command_began_has_no_command_line(tmp_path):
    write_config(tmp_path / "config.yaml", Config())
    assert "overrides" not in read_config(tmp_path / "config.yaml")["provenance"]


def test_the_command_is_rebuilt_for_the_folder_where_the_run_is_now(curated, tmp_path, monkeypatch):
    typed = [
        "dataset=coco",
        "dataset.root=/it's, b",
        "run.name=x",
        "+run.root=/else",
        "split.val=.1",
    ]
    run_dir = curated(*typed)
    said = curate_command(run_dir)
    assert shlex.split(said) == [
        *("python", "-m", "curate", "dataset=coco", "dataset.root=/it's, b", "split.val=.1"),
        *("run.name=mine", f"run.root={tmp_path / 'runs'}"),
    ]
    monkeypatch.chdir(tmp_path)
    assert shlex.split(curate_command(Path("runs/mine")))[-2:] == ["split.val=.1", "run.name=mine"]


@pytest.mark.parametrize("content", [None, "a: [", "run: {name: x}", "provenance: {python: 3}"])
def test_a_run_of_an_unknown_command_line_leaves_its_data_to_the_reader(tmp_path, content):
    path = tmp_path / "mine" / "curate" / "config.yaml"
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_text(content)
    said = curate_command(tmp_path / "mine")
    assert said == (
        f"python -m curate run.name=mine run.root={tmp_path} with the keys of its data set"
    )


def test_a_changed_configuration_is_noticed(tmp_path):
    path = tmp_path / "config.yaml"
    write_config(path, Hub(name="a"))
    whole = path.read_text()
    assert not is_damaged(path)
    path.write_text(whole.replace("name: a", "name: b"))
    assert is_damaged(path)
    assert read_config(path) == {}
    path.write_text(whole.partition("# sha256")[0])  # as an earlier release wrote it
    assert not is_damaged(path)
    assert read_config(path)["name"] == "a"

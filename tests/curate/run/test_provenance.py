"""The configuration that a run keeps: resolved, without secrets, the same bytes every time."""

from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from curate.run.provenance import provenance, read_config, redacted, write_config


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

"""The configuration that a run keeps: resolved, without secrets, the same bytes every time."""

from dataclasses import dataclass, field

from omegaconf import OmegaConf

from curate.provenance import provenance, redacted, write_config


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

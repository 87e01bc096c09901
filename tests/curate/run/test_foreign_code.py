"""A model's folder runs no code: settings that would are refused by name, pickles too."""

import json

import pytest

from curate.run.foreign_code import CODE_KEYS, refuse_code, refuse_pickles
from curate.run.schema import UserError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("key", CODE_KEYS)
def test_a_setting_that_runs_code_is_found_at_any_depth(tmp_path, key):
    write(tmp_path / "config.json", {"layers": 2})
    refuse_code(tmp_path, "model.path=x")
    write(
        tmp_path / "tokenizer/config.json",
        {"text": [{"kwargs": {key: {"AutoModel": "evil.Model"}}}]},
    )
    with pytest.raises(UserError, match=rf"model.path=x: tokenizer.config.json sets '{key}'"):
        refuse_code(tmp_path, "model.path=x")


def test_what_runs_nothing_passes(tmp_path):
    write(tmp_path / "vocab.json", {"auto_map": 17, "trust_remote_code": 3})
    write(tmp_path / "config.json", {"trust_remote_code": False, "auto_map": None})
    write(tmp_path / "list.json", ["auto_map", 1])
    (tmp_path / "broken.json").write_text("{")
    refuse_code(tmp_path, "model.path=x")


def test_pickles_are_refused_where_they_would_be_needed(tmp_path):
    refuse_pickles(tmp_path, "model.path=x")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match=r"pytorch_model.bin.*save_file"):
        refuse_pickles(tmp_path, "model.path=x")
    (tmp_path / "model.safetensors").touch()
    refuse_pickles(tmp_path, "model.path=x")

"""A new source is one module, one YAML and one test; every module of the folder is registered."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from curate import readers
from curate.pipeline.config import CurateConfig
from curate.readers.candidate import Candidate, key_of
from curate.readers.config import DatasetConfig
from curate.readers.registry import READERS, register_reader
from curate.readers.source import Source
from curate.run.schema import UserError, check, to_dataclass

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def lines_source():
    """A source as its one module would hold it: each line of a file is a caption and an image."""

    @dataclass
    class LinesConfig(DatasetConfig):
        path: str = MISSING
        repeat: int = 1

        def __post_init__(self) -> None:
            super().__post_init__()
            check(self.repeat > 0, "dataset.repeat", self.repeat, "> 0")

    @register_reader("lines", LinesConfig)
    def read(config: LinesConfig) -> Source:
        lines = Path(config.path).read_text().splitlines() * config.repeat
        found = [
            Candidate(key_of(f"line-{number}"), (line,), config.name, line, "1")
            for number, line in enumerate(lines)
        ]
        return Source.of(found, str.encode)

    yield read
    del READERS["lines"]
    del ConfigStore.instance().repo["dataset"]["_lines.yaml"]


def dataset(conf, *overrides):
    """The typed configuration of ``dataset=...``, with YAMLs of ``conf`` beside the project's."""
    search = f"hydra.searchpath=[file://{conf}]"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("curate", overrides=[search, *overrides])
    return to_dataclass(cfg, CurateConfig).dataset


def test_a_new_source_is_composed_and_read(tmp_path, lines_source):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/poems.yaml").write_text(
        "defaults: [_lines, _self_]\nname: poems\nreader: lines\npath: ???\n"
    )
    (tmp_path / "poems.txt").write_text("a rose\na tiger\n")
    poems = f"dataset.path={tmp_path}/poems.txt"

    source = readers.read(dataset(tmp_path, "dataset=poems", poems, "dataset.repeat=2"))
    assert [(c.key, c.captions, c.source) for c in source.candidates()] == [
        (f"line-{number}", (caption,), "poems")
        for number, caption in enumerate(["a rose", "a tiger"] * 2)
    ]
    assert source.load("a rose") == b"a rose"

    # What all sources share holds for it, and its schema refuses what is wrong.
    limited = readers.read(dataset(tmp_path, "dataset=poems", poems, "dataset.limit=1"))
    assert len(list(limited.candidates())) == 1
    with pytest.raises(UserError, match=r"dataset\.repeat=0"):
        dataset(tmp_path, "dataset=poems", poems, "dataset.repeat=0")
    with pytest.raises(Exception, match="repaet"):
        dataset(tmp_path, "dataset=poems", poems, "dataset.repaet=2")


def test_a_name_is_registered_once(lines_source):
    with pytest.raises(ValueError, match="two readers are called 'lines'"):
        register_reader("lines", DatasetConfig)(lines_source)


def test_every_yaml_names_a_registered_reader():
    names = {
        line.removeprefix("reader: ")
        for path in (ROOT / "conf/dataset").glob("*.yaml")
        for line in path.read_text().splitlines()
        if line.startswith("reader: ")
    }
    assert names == set(READERS)


def test_an_unknown_reader_is_refused_with_the_names():
    with pytest.raises(UserError, match=r"dataset\.reader='nope' is unknown; .*coco, .*table"):
        readers.read(DatasetConfig(name="x", reader="nope"))


def test_registration_imports_nothing_heavy():
    heavy = "{'PIL', 'datasets', 'ijson', 'numpy', 'pandas', 'pyarrow', 'sqlite3'}"
    code = f"import sys, curate.readers; print(*sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout.split()) == (0, []), found.stderr

"""Parts of one data set: said, in runs of their own, and with names that fit into one folder."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.filters.config import FiltersConfig
from curate.pack.config import ShardsConfig
from curate.pack.sample import read_shard
from curate.pipeline import full, own_part
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger
from curate.run.config import RunConfig
from curate.run.manifest import read_manifest
from curate.run.schema import UserError

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    root = make_pictures(tmp_path / "pictures", 24)
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="set"),
        dataset=FolderConfig(name="set", reader="folder", root=str(root)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(),
        split=SplitConfig(val=0.1, test=0.1, minimum=2),
        shards=ShardsConfig(max_samples=4),
        annotate=AnnotateConfig(images_per_part=10),
    )


def run(config, shard=None, name="set"):
    config = replace(
        config,
        run=replace(config.run, name=name),
        dataset=replace(config.dataset, shard=shard),
    )
    full.run(config, readers.read(config.dataset))
    return config.run.folder / "curate"


def test_three_parts_fit_into_one_folder(config, tmp_path, capsys):
    together = tmp_path / "together"
    for number in range(3):
        curate_dir = run(config, f"{number}/3", f"set-{number}-of-3")
        said = capsys.readouterr()
        assert said.out.startswith(f"note: part={number}/3 is a part with verdicts of its own")
        funnel = json.loads((curate_dir / "funnel.json").read_bytes())
        assert funnel["notes"][0] == own_part.note(replace(config.dataset, shard=f"{number}/3"))[0]
        assert read_manifest(curate_dir).part == f"{number}/3"
        for path in sorted((curate_dir / "shards").rglob("*.*")):
            target = together / path.relative_to(curate_dir)
            assert not target.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    keys = [sample.key for tar in together.rglob("*.tar") for sample in read_shard(tar)]
    assert sorted(keys) == [f"{number:04d}" for number in range(24)]


def test_a_whole_data_set_is_no_part(config, capsys):
    curate_dir = run(config)
    assert "part=" not in capsys.readouterr().out
    assert read_manifest(curate_dir).part is None
    assert "part" not in json.loads((curate_dir / "manifest.json").read_bytes())
    assert (curate_dir / "shards/train/000000.tar").is_file()


def test_a_second_part_under_one_run_is_refused_before_work(config):
    curate_dir = run(config, "0/3")
    before = ledger.read(curate_dir)
    for shard, name in (("1/3", "set-1-of-3"), ("0/4", "set-0-of-4")):
        with pytest.raises(UserError, match=rf"holds part 0/3 .* run\.name={name}$"):
            run(config, shard)
    assert ledger.read(curate_dir).equals(before)
    run(config, "00/3")  # the same part again
    run(config)  # the whole, which holds the part
    run(config, "2/3", "set-0-of-3")
    with pytest.raises(UserError, match=r"run\.name=set-1-of-3$"):
        run(config, "1/3", "set-0-of-3")


def test_the_command_refuses_it_with_exit_2(tmp_path):
    curate_dir = tmp_path / "mine" / "curate"
    curate_dir.mkdir(parents=True)
    (curate_dir / "config.yaml").write_text("dataset: {name: mine, shard: 0/8}\n")
    result = subprocess.run(
        [sys.executable, "-m", "curate", "dataset=folder", "dataset.root=nowhere", "run.name=mine",
         f"run.root={tmp_path}", "part=1/8"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "type run.name=mine-1-of-8" in result.stderr
    assert [path.name for path in curate_dir.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("shard", "starts"), [("3/8", "3-of-8-"), ("3/64", "03-of-64-"), (None, "")]
)
def test_names_sort_by_part(config, shard, starts):
    assert own_part.prefix(replace(config.dataset, shard=shard)) == starts

"""A training keeps its shards until the user says that they may be replaced; nobody is asked for nothing."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.held_out import held_out_table, write
from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.pack import shard_tasks as pack
from curate.pack.config import ShardsConfig
from curate.pack.samples import Samples
from curate.pipeline import full as pipeline
from curate.pipeline import trial
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.remove import remove
from curate.run import checksums
from curate.run.config import RunConfig
from curate.run.files import write_certified
from curate.run.ledger import read
from curate.run.manifest import read_manifest
from curate.run.provenance import write_config
from curate.run.schema import UserError


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="small"),
        dataset=FolderConfig(
            name="small", reader="folder", root=str(make_pictures(tmp_path / "pictures", 12))
        ),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(caption=CaptionFilterConfig(min_words=2)),
        shards=ShardsConfig(max_samples=4),
        annotate=AnnotateConfig(images_per_part=10),
    )


@dataclass
class Data:
    """Of a training's configuration, which is not known here."""

    run: str = "small"


@dataclass
class Stored:
    data: Data = field(default_factory=Data)


def run(config):
    pipeline.run(config, readers.read(config.dataset))
    return config.run.folder / "curate"


def train_on(config, name="small"):
    """Leave what a training leaves: a checkpoint."""
    folder = Path(config.run.root, name, "finetune")
    (folder / "checkpoints" / "step-00000004").mkdir(parents=True)
    return folder


def everything(curate_dir):
    """All bytes but the lock's and what was measured; the configuration too, which has to fit the shards."""
    return {
        path: path.read_bytes()
        for path in sorted(curate_dir.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.parent.name != "annotations"
    }


def test_another_setting_is_refused_by_name_and_changes_nothing(config, capsys):
    curate_dir = run(config)
    folder, before = train_on(config), everything(curate_dir)
    config.filters.caption.min_words = 4
    with pytest.raises(UserError) as refused:
        run(config)
    said = str(refused.value)
    assert said.startswith(f"{folder} was trained on the shards in {curate_dir}, which this")
    assert "filters.caption.min_words (2 -> 4) changed" in said
    assert "run.replace=true" in said
    assert everything(curate_dir) == before
    assert "min_words (2 -> 4) changed; if that" in capsys.readouterr().out  # before measuring
    config.run.replace = True
    run(config)
    assert everything(curate_dir) != before
    assert f"note: {folder} was trained on the previous shards" in capsys.readouterr().out


def test_new_pictures_are_asked_about_as_well(config, make_pictures, tmp_path):
    curate_dir = run(config)
    train_on(config)
    before = everything(curate_dir)
    make_pictures(tmp_path / "pictures", 15)
    (tmp_path / "pictures" / "0001.txt").write_text("quite another caption")
    (tmp_path / "pictures" / "0002.png").unlink()
    with pytest.raises(UserError, match=r"input changed \(pictures: 3 new, 1 gone, 1 changed\)"):
        run(config)
    assert not checksums.damaged(curate_dir)
    after = everything(curate_dir)
    del before[curate_dir / "checksums.json"], after[curate_dir / "checksums.json"]
    assert after == before


@pytest.mark.parametrize(
    "lost",
    [
        "a shard",
        *(
            pytest.param(lost, marks=pytest.mark.slow)
            for lost in ("nothing", "a tar", "the manifest")
        ),
    ],
)
def test_nobody_is_asked_where_the_shards_stay(config, lost, bytes_of):
    curate_dir = run(config)
    before = bytes_of(curate_dir / "shards")
    train_on(config)
    tar = next((curate_dir / "shards" / "train").glob("*.tar"))
    if lost == "a tar":
        tar.unlink()
    elif lost == "a shard":
        for path in tar.parent.glob(f"{tar.stem}*"):
            path.unlink()
    elif lost == "the manifest":  # killed
        (curate_dir / "manifest.json").unlink()
    config.annotate.workers = 3
    config.filters.caption.max_words = 99  # lets all pass
    run(config)
    assert bytes_of(curate_dir / "shards") == before


def test_a_training_whose_configuration_is_damaged_keeps_its_shards(config):
    curate_dir = run(config)
    folder = train_on(config, "other")
    state = {"identity": {"shards": read_manifest(curate_dir).digest()}}
    write_certified(folder / "checkpoints" / "step-00000004" / "state.json", state)
    write_config(folder / "config.yaml", config)
    (folder / "config.yaml").write_text("damaged: " + (folder / "config.yaml").read_text())
    config.shards.jpeg_quality = 50
    with pytest.raises(UserError, match=r"other/finetune was trained"):
        run(config)


def test_nobody_is_asked_again_about_what_was_removed(config):
    """The report that a removal deletes can be written again, although a training stood on the shards."""
    curate_dir = run(config)
    state = {"identity": {"shards": read_manifest(curate_dir).digest()}}
    write_certified(train_on(config) / "checkpoints" / "step-00000004" / "state.json", state)
    kept = read(curate_dir, ["key"], [("kept", "==", True)])["key"].iloc[0]
    remove(curate_dir, "keys", {kept}, "0" * 64)
    assert not (curate_dir / "report.html").exists()
    run(config)
    assert (curate_dir / "report.html").is_file()
    assert kept not in set(read(curate_dir, ["key"], [("kept", "==", True)])["key"])


def test_where_nothing_tells_what_was_there_the_question_is_asked(config):
    curate_dir = run(config)
    train_on(config)
    shutil.rmtree(curate_dir)
    with pytest.raises(UserError, match="ledger, which would tell what changed, is missing"):
        run(config)


def test_what_the_ledger_does_not_show_is_seen_in_the_shards_digest(config):
    """The same pairs, packed in another way."""
    curate_dir = run(config)
    train_on(config)
    before = everything(curate_dir)
    config.shards.jpeg_quality = 50  # goes into the digest, though these pictures stay PNG
    with pytest.raises(UserError, match=r"shards\.jpeg_quality \(95 -> 50\) changed"):
        run(config)
    assert everything(curate_dir) == before


def test_words_of_help_are_no_setting_that_changed(config, make_pictures, tmp_path):
    run(config)
    train_on(config)
    config.dataset.layout = "other words"
    make_pictures(tmp_path / "pictures", 15)
    with pytest.raises(UserError, match=r"the input changed \(pictures: 3 new\)"):
        run(config)


def test_another_packing_of_the_same_is_asked_about(config, monkeypatch):
    run(config)
    train_on(config)
    digest = Samples.digest
    monkeypatch.setattr(Samples, "digest", lambda *a: digest(*a)[::-1])
    with pytest.raises(UserError, match="this version decides or packs in another way"):
        run(config)


def test_other_rows_of_the_table_of_held_out_pictures_are_named(config, tmp_path):
    table = tmp_path / "heldout_keys.parquet"
    rows = held_out_table(run(config))
    assert set(rows["split"]) == {"val", "test"}
    write(table, rows)
    config.split.held_out = str(table)
    run(config)
    train_on(config)
    write(table, rows.assign(split="test"))
    with pytest.raises(UserError, match=r"the same, but split\.held_out has other rows by now, or"):
        run(config)


@pytest.mark.slow
def test_a_replacement_that_was_killed_goes_on_without_a_word(
    config, monkeypatch, bytes_of, tmp_path
):
    run(config)
    train_on(config)
    config.filters.caption.min_words, config.run.replace = 4, True
    written = pack.write_shard

    def killed(*args):
        if "000001" in args[1].path:
            raise KeyboardInterrupt
        return written(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pack, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    resumed = run(config)
    config.run.root = str(tmp_path / "elsewhere")
    straight = run(config)
    for part in ("shards", "ledger"):
        assert bytes_of(resumed / part) == bytes_of(straight / part)


def test_the_training_of_another_run_counts_too(config):
    run(config)
    folder = train_on(config, "sweep_3")
    write_config(folder / "config.yaml", Stored())
    config.filters.caption.min_words = 4
    with pytest.raises(UserError, match=r"sweep_3/finetune was trained on the shards in .*small"):
        run(config)


@pytest.mark.slow
def test_without_a_training_or_in_a_trial_nobody_is_asked(config, capsys):
    run(config)
    (config.run.folder / "finetune").mkdir()  # it never got to a checkpoint
    config.filters.caption.min_words = 3
    run(config)
    train_on(config)
    config.filters.caption.min_words, config.dry_run = 5, 6
    trial.run(config, readers.read(config.dataset))
    assert "dry run: 6 of 12 images" in capsys.readouterr().out


def test_a_trial_that_fails_leaves_the_previous_one(config, monkeypatch):
    config.dry_run = 6
    trial.run(config, readers.read(config.dataset))
    folder = config.run.folder / "dry_run" / "curate"
    before = everything(folder)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "judge", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trial.run(config, readers.read(config.dataset))
    assert everything(folder) == before
    trial.run(config, readers.read(config.dataset))
    assert not list(folder.parent.rglob("*.part"))
    assert everything(folder).keys() == before.keys()

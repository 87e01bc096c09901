"""Shards and ledger from tables on the disk equal, byte for byte, those that are made in memory."""

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curate.pack import shard_tasks, sorting
from curate.pack import stage as pack
from curate.pack.config import ShardsConfig
from curate.pack.final_ledger import write_ledger
from curate.pack.images import ImageChanged
from curate.pack.sample import read_shard
from curate.run import ledger
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import TasksFailed
from curate.run.manifest import stats_path
from curate.run.schema import UserError
from tests.curate.pack import oracle
from tests.curate.pack.ledgers import picture, random_ledger, staged


@dataclass
class Shuffled:
    """As an engine of other processes: everything is pickled, and nothing comes in order."""

    seed: int = 0
    done: list = field(default_factory=list)

    def map(self, spec, tasks, progress=lambda count: None):
        tasks = list(tasks)
        random.Random(self.seed).shuffle(tasks)
        spec, tasks = pickle.loads(pickle.dumps((spec, tasks)))
        for result in InProcess().map(spec, tasks, progress):
            self.done.append(result.task)
            yield pickle.loads(pickle.dumps(result))


@dataclass
class Run:
    """What a packing did."""

    folder: Path
    packed: pack.Packed
    asked: list[bool]


def write(
    folder: Path,
    table: pd.DataFrame,
    config: ShardsConfig,
    engine=None,
    load: Callable = picture,
    prefix: str = "",
    **limits: int,
) -> Run:
    """Pack the way a curation does."""
    asked, engine = [], engine or InProcess()
    with staged(folder / "tasks" / "ledger", table, **limits) as (found, parts):
        packed = pack.write_shards(
            folder, found, parts, config, engine, load, 2, asked.append, prefix
        )
    write_ledger(folder / "ledger", parts, packed.planned, config.order, engine)
    return Run(folder, packed, asked)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of shards and ledger."""
    names = [path for part in ("shards", "ledger") for path in (folder / part).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if path.is_file()}


@pytest.mark.parametrize(("most", "seed"), [(1, 0), (7, 1), (7, 2), (1000, 0)])
def test_bytes_equal_those_of_packing_in_memory(most, seed, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 100)
    monkeypatch.setattr(sorting, "_ROWS", 37)
    monkeypatch.setattr(pack, "SHARDS_PER_FILE", 5)
    monkeypatch.setattr(sorting, "SHARDS_PER_FILE", 5)
    table, config = random_ledger(seed, 60, jpegs=seed != 2), ShardsConfig(most)
    expected = oracle.write(tmp_path / "memory", table, picture, config, "1-of-2-")
    for engine, threads in ((InProcess(), 1), (Shuffled(seed), 2)):
        folder = tmp_path / type(engine).__name__
        found = write(
            folder, table, config, engine, prefix="1-of-2-", threads=threads, memory_bytes=10**8
        )
        assert found.packed.shards == expected
        assert found.packed.extension == ("png" if seed == 2 else "jpg")
        assert bytes_of(folder) == bytes_of(tmp_path / "memory")
        assert found.asked == [False]
        assert not (folder / "tasks" / "samples").exists()


def test_flags_that_all_kept_pairs_lack_have_no_type(tmp_path):
    """As pandas found it in memory: shards of earlier runs stay recognised."""
    table, config = random_ledger(0, 30), ShardsConfig(10)
    table.loc[table["kept"] & table["flag"].notna(), "kept"] = False
    table.loc[~table["kept"], "split"] = ""
    assert table["flag"].notna().any()
    assert table["kept"].any()
    oracle.write(tmp_path / "memory", table, picture, config)
    write(tmp_path / "disk", table, config)
    assert bytes_of(tmp_path / "disk") == bytes_of(tmp_path / "memory")


def test_no_similarities_at_all(tmp_path):
    table, config = random_ledger(1, 30).assign(clip_similarity=np.float32("nan")), ShardsConfig(10)
    oracle.write(tmp_path / "memory", table, picture, config)
    write(tmp_path / "disk", table, config)
    assert bytes_of(tmp_path / "disk") == bytes_of(tmp_path / "memory")


def test_the_order_of_the_images_changes_no_shard(tmp_path):
    table, config = random_ledger(2, 60), ShardsConfig(7)
    keys = table["key"].unique()
    moved = table.set_index("key").loc[np.random.default_rng(0).permutation(keys)].reset_index()
    first, second = (
        write(tmp_path / str(i), each, config) for i, each in enumerate((table, moved))
    )
    assert first.packed.shards == second.packed.shards


@pytest.mark.parametrize("seed", range(2))
def test_in_the_order_of_the_source_shards_are_full_and_in_order(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 50)
    table = random_ledger(seed, 70)
    config = ShardsConfig(8, order="source")
    run = write(tmp_path, table, config, Shuffled(seed))
    kept = table[table["kept"]].drop_duplicates("key")
    final = ledger.read(tmp_path)
    assert (final["shard"] != "").equals(final["kept"])
    for split, images in kept.groupby("split"):
        keys = images["key"].tolist()
        paths = [f"shards/{split}/{n:06d}.tar" for n in range(-(-len(keys) // 8))]
        assert [s.path for s in run.packed.shards if s.split == split] == paths
        for number, path in enumerate(paths):
            held = [sample.key for sample in read_shard(tmp_path / path)]
            assert held == keys[8 * number : 8 * number + 8]
            assert set(final.loc[final["shard"] == path, "key"]) == set(held)
    again = write(tmp_path, table, config)
    assert (again.asked, again.packed.shards) == ([], run.packed.shards)


def test_another_order_writes_other_shards(tmp_path):
    table = random_ledger(0, 40)
    before = write(tmp_path, table, ShardsConfig(8))
    after = write(tmp_path, table, ShardsConfig(8, order="source"))
    assert after.asked == [True]
    assert after.packed.shards != before.packed.shards
    back = write(tmp_path, table, ShardsConfig(8))
    assert (back.asked, back.packed.shards) == ([True], before.packed.shards)


def test_what_is_there_is_not_written_again(tmp_path):
    table, config = random_ledger(0, 60), ShardsConfig(8)
    first = write(tmp_path, table, config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.*")}
    again = write(tmp_path, table, config)
    assert (again.packed.shards, again.asked) == (first.packed.shards, [])
    assert {path: path.stat().st_mtime_ns for path in times} == times
    lost = tmp_path / first.packed.shards[1].path
    lost.unlink()
    engine = Shuffled()
    third = write(tmp_path, table, config, engine)
    assert third.asked == [False]
    assert third.packed.shards == first.packed.shards
    written = [task for task in engine.done if isinstance(task, shard_tasks.Checked)]
    assert [str(task) for task in written] == [first.packed.shards[1].path]


def test_it_is_asked_once_and_before_anything_changes(tmp_path):
    table, config = random_ledger(0, 60), ShardsConfig(8)
    write(tmp_path, table, config)
    before = bytes_of(tmp_path / "shards")

    class Refused(UserError):
        pass

    def refuse(outdated):
        assert outdated
        raise Refused

    changed = table.assign(caption=table["caption"] + "!")
    with (
        staged(tmp_path / "tasks" / "ledger", changed) as (found, parts),
        pytest.raises(Refused),
    ):
        pack.write_shards(tmp_path, found, parts, config, InProcess(), picture, 2, refuse)
    assert bytes_of(tmp_path / "shards") == before


@pytest.mark.parametrize("engine", [InProcess(), Shuffled()], ids=["in order", "shuffled"])
def test_a_killed_packing_goes_on(engine, tmp_path, monkeypatch):
    table, config = random_ledger(0, 60), ShardsConfig(8)
    oracle.write(tmp_path / "memory", table, picture, config)
    written = shard_tasks.write_shard
    count = 0

    def killed(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return written(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shard_tasks, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "disk", table, config, engine)
    assert len(list((tmp_path / "disk").rglob("*_stats.json"))) == 2
    write(tmp_path / "disk", table, config, engine)
    assert bytes_of(tmp_path / "disk") == bytes_of(tmp_path / "memory")


def changed_picture(keys, location):
    return b"other" if location in keys else picture(location)


@pytest.mark.parametrize("engine", [InProcess(), Shuffled()], ids=["in order", "shuffled"])
def test_a_changed_image_is_named_and_the_other_shards_are_written(engine, tmp_path):
    table, config = random_ledger(0, 60), ShardsConfig(8)
    first = write(tmp_path / "whole", table, config)
    keys = [next(iter(read_shard(tmp_path / "whole" / s.path))).key for s in first.packed.shards]
    location = table.set_index("key")["location"][[keys[2], keys[4]]].drop_duplicates().tolist()
    load = partial(changed_picture, location)
    with pytest.raises(
        ImageChanged, match=f"image ({keys[2]}|{keys[4]}) has changed since"
    ) as raised:
        write(tmp_path / "disk", table, config, engine, load)
    assert raised.value.key in (keys[2], keys[4])
    there = [stats_path(tmp_path / "disk" / s.path).is_file() for s in first.packed.shards]
    assert [n for n, found in enumerate(there) if not found] == [2, 4]
    control = table[table["control_location"].notna() & table["kept"]].iloc[0]
    load = partial(changed_picture, [control["control_location"]])
    with pytest.raises(ImageChanged, match=r"\(its control picture\) has changed") as raised:
        write(tmp_path / "other", table, config, engine, load)
    assert raised.value.key == control["key"]


def broken_picture(location):
    raise OSError("the disk is on fire")


def test_a_shard_that_cannot_be_written_is_named(tmp_path):
    table = random_ledger(0, 20)
    with pytest.raises(TasksFailed, match=r"writing shards: .*shards/train/0000.*disk is on fire"):
        write(tmp_path, table, ShardsConfig(8), load=broken_picture)


def test_rows_that_are_not_those_of_the_plan_are_an_error(tmp_path, monkeypatch):
    table, real = random_ledger(0, 40), pack.plan
    with monkeypatch.context() as patch:
        patch.setattr(sorting, "_OF_AN_IMAGE", "key DESC")
        patch.setattr(pack, "plan", lambda *a: _without_the_last(real(*a)))
        with pytest.raises((RuntimeError, TasksFailed), match=r"images for|planned"):
            write(tmp_path, table, ShardsConfig(8))


def _without_the_last(planned):
    side = planned.sides["train"]
    planned.sides["train"] = type(side)(side.starts[:-1], side.names[:-1], side.samples[:-1])
    return planned


def test_stale_parts_of_a_longer_ledger_go(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "part-00007.parquet").write_bytes(b"old")
    write(tmp_path, random_ledger(0, 20), ShardsConfig(8))
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["part-00000.parquet"]

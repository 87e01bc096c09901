"""Into how many tasks a data set is cut, in which order they are done, by whom, and in how much memory: no byte depends on it."""

import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import pytest

from curate.pipeline import full
from curate.run import ledger
from curate.run.engine.config import NAMES, EngineConfig
from tests.curate import generated_pictures
from tests.curate.pipeline import every_rule

TASKS, THREADS, MEMORY = (1, 2, 5, 16), (1, 2), ("500MB", "2GB")
COUNT, MANY = 160, 20_000
STARTER = "curate/starter_clip"
WHOLE = (1, "inprocess", 2, "2GB")
QUICK = [
    (2, "inprocess", 1, "500MB"),
    (5, "inprocess", 2, "500MB"),
    (16, "inprocess", 1, "2GB"),
    (16, "processes", 2, "500MB"),
    (5, "ray", 1, "2GB"),
]
ALWAYS = (QUICK[1],)  # `make test-all` takes the others, too
MORE = [way for way in product(TASKS, NAMES, THREADS, MEMORY) if way not in (WHOLE, *QUICK)]


@dataclass
class Shuffled:
    """An engine that another one's tasks come to in another order; it notes how many there were."""

    engine: object
    counts: list[int]

    def map(self, spec, tasks, progress=lambda count: None):
        self.counts.append(len(tasks))
        mixed = random.Random(len(tasks)).sample(list(tasks), len(tasks))
        return self.engine.map(spec, mixed, progress)


def curated(root, pictures, clip, count, way):
    """Curate in one way; the hashes of ledger, shards, manifest and funnel."""
    tasks, engine, threads, memory = way
    if engine == "ray" and find_spec(engine) is None:
        pytest.skip("ray is not installed")
    workers = None if engine == "inprocess" else 2
    chosen = EngineConfig(name=engine, workers=workers, threads=threads, memory=memory)
    config = every_rule.config(root, pictures, clip, count, tasks, chosen)
    counts = []

    @contextmanager
    def shuffling(config, folder, opened=full.open_engine):
        with opened(config, folder) as engine:
            yield Shuffled(engine, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full, "open_engine", shuffling)
        every_rule.cut_searches(patch, count)
        curate_dir = every_rule.curate(config)
    assert counts[0] == tasks  # the first that are mapped measure
    assert not (curate_dir / "tasks").exists()
    assert len(list(curate_dir.glob("annotations/part-*.parquet"))) == tasks
    return every_rule.hashes(curate_dir)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    generated_pictures.write(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def of_few(few, tiny_clip, tmp_path_factory):
    """The hashes of one task, and what the pictures bring about."""
    root = tmp_path_factory.mktemp("whole")
    return curated(root, few, tiny_clip, COUNT, WHOLE), root / "run" / "curate"


def test_the_pictures_have_what_deciding_has_to_tell_apart(of_few):
    hashes, curate_dir = of_few
    table = ledger.read(curate_dir)
    rules = set(table["rule"]) - {""}
    assert rules >= {"unreadable", "duplicate", "clip_similarity", "score"}
    assert table["caption_index"].max() == 1
    assert set(table["split"]) == {"", "train", "val", "test"}
    assert sum(path.endswith(".tar") for path in hashes) > 5


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=() if way in ALWAYS else pytest.mark.slow) for way in QUICK],
    ids=str,
)
def test_no_byte_depends_on_how_the_work_is_done(few, tiny_clip, of_few, tmp_path, way):
    assert curated(tmp_path, few, tiny_clip, COUNT, way) == of_few[0]


@pytest.mark.slow
@pytest.mark.parametrize("way", MORE, ids=str)
def test_no_byte_depends_on_any_way(few, tiny_clip, of_few, tmp_path, way):
    assert curated(tmp_path, few, tiny_clip, COUNT, way) == of_few[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    generated_pictures.write(folder, MANY)
    return folder


@pytest.fixture(scope="module")
def of_many(many, tmp_path_factory):
    return curated(tmp_path_factory.mktemp("whole"), many, STARTER, MANY, WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("way", QUICK, ids=str)
def test_no_byte_of_many_depends_on_how_the_work_is_done(many, of_many, tmp_path_factory, way):
    root = tmp_path_factory.mktemp("way")
    try:
        assert curated(root, many, STARTER, MANY, way) == of_many
    finally:
        shutil.rmtree(root)

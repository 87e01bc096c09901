"""Into how many tasks a data set is cut, in which order they are done, by whom, and in how much memory: no byte depends on it."""

import hashlib
import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger
from curate.run.config import RunConfig
from curate.run.engine.config import NAMES, EngineConfig
from tests.curate import generated_pictures

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
    config = CurateConfig(
        run=RunConfig(root=str(root), name="run"),
        dataset=FolderConfig(name="drawn", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{clip}", device="cpu", batch_size=32),
        filters=FiltersConfig(
            image=ImageFilterConfig(max_aspect=3.0),
            clip_similarity=ClipSimilarityConfig(fraction=0.8),
            duplicates=DuplicatesConfig(hamming_distance=6, cosine=0.9999),
            columns={"score": ColumnConfig(maximum=1.5, keep_missing=True)},
        ),
        split=SplitConfig(val=0.1, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=max(8, count // 40)),
        annotate=AnnotateConfig(images_per_part=-(-count // tasks)),
        engine=EngineConfig(name=engine, workers=2, threads=threads, memory=memory),
    )
    counts = []

    @contextmanager
    def shuffling(config, folder, opened=full.open_engine):
        with opened(config, folder) as engine:
            yield Shuffled(engine, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full, "open_engine", shuffling)
        full.run(config, readers.read(config.dataset))
    assert counts[0] == tasks  # the first that are mapped measure
    curate_dir = root / "run" / "curate"
    assert not (curate_dir / "tasks").exists()
    assert len(list(curate_dir.glob("annotations/part-*.parquet"))) == tasks
    return _hashes(curate_dir)


def _hashes(curate_dir):
    files = [curate_dir / "manifest.json", curate_dir / "funnel.json"]
    files += [path for name in ("ledger", "shards") for path in (curate_dir / name).rglob("*")]
    return {
        str(path.relative_to(curate_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


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


@pytest.mark.parametrize("way", QUICK, ids=str)
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

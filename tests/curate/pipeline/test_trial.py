"""The trial: its interval covers the truth, its costs match the run's, and it writes no run."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.pipeline import forecast
from curate.pipeline import full as pipeline
from curate.pipeline import trial as dry_run
from curate.pipeline.config import CurateConfig
from curate.readers.candidate import Candidate
from curate.readers.folder import FolderConfig
from curate.readers.source import Source
from curate.run import database, ledger
from curate.run.config import RunConfig
from curate.run.engine.config import EngineConfig
from curate.run.intervals import wilson
from curate.run.units import duration, size

PLANTED, SHORT = 240, 80


@pytest.fixture(scope="module")
def planted(make_pictures, tmp_path_factory):
    """Images of which only the first third have captions of one word."""
    root = make_pictures(tmp_path_factory.mktemp("planted") / "pictures", PLANTED)
    for number in range(PLANTED):
        caption = "cat" if number < SHORT else f"a cat and {number} dogs"
        (root / f"{number:04d}.txt").write_text(caption)
    return root


@pytest.fixture
def config(tiny_clip, planted, tmp_path):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="planted"),
        dataset=FolderConfig(name="planted", reader="folder", root=str(planted)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(caption=CaptionFilterConfig(min_words=2)),
        split=SplitConfig(val=0.1, test=0.1, minimum=4),
        annotate=AnnotateConfig(images_per_part=16),
        dry_run=90,
    )


def tried(config, monkeypatch) -> tuple[forecast.Trial, forecast.Count]:
    """What the trial passes to its forecast."""
    seen = []
    original = forecast.lines
    monkeypatch.setattr(dry_run, "lines", lambda *given: seen.append(given[:2]) or original(*given))
    dry_run.run(config, readers.read(config.dataset))
    return seen[0]


def test_the_interval_covers_the_planted_share_and_no_run_is_there(config, monkeypatch, capsys):
    trial, whole = tried(config, monkeypatch)
    assert (trial.count.images, whole) == (90, forecast.Count(PLANTED, PLANTED))
    low, high = wilson(trial.kept_images, 90)
    assert low < 1 - SHORT / PLANTED < high
    assert high - low < 0.2
    assert dict(trial.steps)["caption_words"] == 90 - trial.kept_images
    run_dir = config.run.folder
    assert [path.name for path in run_dir.iterdir()] == ["dry_run"]
    assert {path.name for path in (run_dir / "dry_run" / "curate").iterdir()} == {
        "annotations",
        "ledger",
    }
    assert not list(run_dir.rglob("*.tar"))
    assert "next, type: python -m curate" in capsys.readouterr().out


def test_a_trial_does_not_change_a_run(config, bytes_of, monkeypatch):
    pipeline.run(config, readers.read(config.dataset))
    curate_dir = config.run.folder / "curate"
    before = bytes_of(curate_dir)
    tried(config, monkeypatch)
    assert bytes_of(curate_dir) == before


def test_a_trial_of_everything_matches_the_run(config, monkeypatch):
    config.dry_run = 10_000
    trial, whole = tried(config, monkeypatch)
    assert trial.count == whole
    pipeline.run(config, readers.read(config.dataset))
    curate_dir = config.run.folder / "curate"
    table = ledger.read(curate_dir)
    assert trial.kept_images == table["kept"].sum() == PLANTED - SHORT
    tars = sum(path.stat().st_size for path in curate_dir.rglob("*.tar"))
    assert trial.shard_bytes == pytest.approx(tars, rel=0.05)
    parts = sum(path.stat().st_size for path in curate_dir.glob("annotations/*"))
    assert trial.annotation_bytes == pytest.approx(parts, rel=0.05)
    parts = sum(path.stat().st_size for path in curate_dir.glob("ledger/*"))
    assert trial.ledger_bytes == pytest.approx(parts, rel=0.05)
    assert trial.work_bytes > trial.ledger_bytes  # what is decided there is staged, and more


def test_memory_grows_with_the_images_once_tables_are_full_and_so_does_the_disk(
    config, monkeypatch, capsys
):
    config.engine = EngineConfig(memory="1GB")
    trial, _ = tried(config, monkeypatch)
    assert "of working files" in capsys.readouterr().out
    trial = replace(trial, embedding_bytes=2_048)
    large, larger = forecast.Count(10**9, 10**9), forecast.Count(2 * 10**9, 2 * 10**9)

    def more(cost, tried=trial):
        return cost(tried, larger) - cost(tried, large)

    assert more(forecast.peak_bytes) == 32e9
    assert forecast.peak_bytes(trial, large) == trial.peak_bytes + 1e9 + 32e9
    alone = replace(trial, joins_siblings=False)
    assert more(forecast.peak_bytes, alone) == 27e9
    assert more(forecast.working_bytes) == pytest.approx(
        1e9 * (trial.work_bytes / 90 + forecast.PAIR_BYTES + 2_048)
    )
    assert more(forecast.working_bytes, alone) == pytest.approx(
        1e9 * (trial.work_bytes / 90 + forecast.PAIR_BYTES)
    )
    fits = replace(alone, table_bytes=10**15, work_bytes=0)
    assert more(forecast.working_bytes, fits) == pytest.approx(1e9 * trial.ledger_bytes / 90)


def test_the_engine_s_limits_hold_and_its_workers_are_not_tried(
    config, tmp_path, monkeypatch, capsys
):
    config.engine = EngineConfig(
        name="processes", workers=3, memory="150MB", threads=1, scratch=str(tmp_path / "scratch")
    )
    explained, limits = database._explained, []
    monkeypatch.setattr(
        database, "_explained", lambda given, name: limits.append(given) or explained(given, name)
    )
    config.dry_run = 20
    tried(config, monkeypatch)
    assert {*limits} == {config.engine.limits(tmp_path)}
    assert "in this process alone" in (said := capsys.readouterr().out)
    assert "engine=processes does it with 3 workers at once" in said


def test_a_trial_may_keep_nothing(config, monkeypatch, capsys):
    config.filters.caption.min_words = 50
    trial, _ = tried(config, monkeypatch)
    assert trial.kept_images == trial.shard_bytes == 0
    assert "kept images: 0.0% (0.0% ... 4.1%)" in capsys.readouterr().out


def candidates(count: int) -> list[Candidate]:
    return [Candidate(f"k{n:05d}", ("a", "b"), "s", str(n), "1") for n in range(count)]


def test_the_choice_is_even_and_reproducible():
    everything = candidates(10_000)
    source = Source(lambda: iter(everything), lambda _: b"")  # of unknown total
    chosen, whole = dry_run.choose(source, 500)
    keys = [c.key for c in chosen.candidates()]
    assert whole == forecast.Count(10_000, 20_000)
    assert keys == sorted(set(keys))
    assert len(keys) == chosen.total == 500
    tenths = Counter(key[:3] for key in keys)
    assert all(50 - 28 < tenths[f"k0{n}"] < 50 + 28 for n in range(10))  # four standard deviations
    fewer = dry_run.choose(Source.of(everything[:9_000], lambda _: b""), 100)[0]
    assert {c.key for c in fewer.candidates()} <= {c.key for c in everything[:9_000]}
    again = dry_run.choose(Source.of(everything, lambda _: b""), 100)[0]
    assert {c.key for c in again.candidates()} <= set(keys)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_wilsons_interval_covers_as_often_as_it_says(share):
    import numpy as np

    seen = np.random.default_rng(0).binomial(200, share, 4_000)
    ends = [wilson(each, 200) for each in seen]
    covered = np.mean([low <= share <= high for low, high in ends])
    assert covered == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_interval_at_the_edge_stays_inside_and_has_a_width(share):
    low, high = wilson(50 * share, 50)
    assert 0 <= low < high <= 1


def test_too_little_disk_is_reported(config, monkeypatch, capsys):
    room = shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: room)
    tried(config, monkeypatch)
    assert "NOT ENOUGH" in capsys.readouterr().out


def test_units_and_the_next_command():
    assert [duration(s) for s in (0.4, 75, 7_300, 400_000, 86_400)] == [
        "0.4 s", "1 min 15 s", "2 h 1 min", "4 d 15 h", "1 d 0 h",
    ]  # fmt: skip
    assert size(1_500_000) == "1.5 MB"
    assert dry_run.next_command(["dataset=coco", "dry_run=500", "run.name=my run"]) == (
        "python -m curate dataset=coco 'run.name=my run'"
    )

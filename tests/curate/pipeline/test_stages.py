"""One curation on several engines, in several processes, and killed: always the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from curate import readers
from curate.annotate import known, measurer, rejects
from curate.annotate.config import AnnotateConfig
from curate.annotate.listing import read_plan
from curate.annotate.rejects import TooMany
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.measures import heif
from curate.measures.decode import probe
from curate.measures.unreadable import UnreadableImage
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger, parquet
from curate.run.config import RunConfig
from curate.run.schema import UserError

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGES = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_pictures):
    folder = tmp_path_factory.mktemp("stages")
    pictures = make_pictures(folder / "pictures", IMAGES)
    for number in (3, 30):  # copies, in other tasks than what they are copies of
        (pictures / f"copy{number}.png").write_bytes((pictures / f"{number:04d}.png").read_bytes())
        (pictures / f"copy{number}.txt").write_text("a copy")
    (pictures / "0007.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def command(place, tiny_clip):
    """The arguments of a curation, below a root."""

    def of(root, *more):
        return [
            sys.executable, "-m", "curate", "dataset=folder", f"dataset.root={place / 'pictures'}",
            "run.name=small", f"run.root={place / root}", "clip=custom",
            f"clip.name=local-dir:{tiny_clip}", "clip.batch_size=8", "clip.device=cpu",
            "filters.clip_similarity.fraction=0.75", "annotate.images_per_part=6",
            "shards.max_samples=8", *more,
        ]  # fmt: skip

    return of


@pytest.fixture(scope="module")
def curate(command):
    def run(root, *more):
        return subprocess.run(
            command(root, *more), cwd=REPOSITORY, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture(scope="module")
def whole(curate, place, bytes_of):
    """The bytes of a curation by one process."""
    done = curate("plain")
    assert done.returncode == 0, done.stderr
    assert not (place / "plain/small/curate/tasks").exists()
    return bytes_of(place / "plain/small/curate")


def parts_of(folder):
    return sorted(path.name for path in folder.glob("annotations/part-*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_an_engine_changes_no_byte(curate, place, bytes_of, whole, engine):
    if find_spec(engine) is None and engine == "ray":
        pytest.skip("ray is not installed")
    done = curate(engine, f"engine={engine}", "engine.workers=2")
    assert done.returncode == 0, done.stderr
    assert bytes_of(place / engine / "small/curate") == whole
    assert "42 img" in done.stderr


@pytest.mark.slow
def test_shares_at_once_and_a_finish_are_a_curation(command, curate, place, bytes_of, whole):
    folder = place / "shares/small/curate"
    early = curate("shares", "stage=finish")
    assert early.returncode == 2, early.stderr
    assert "7 of 7 tasks" in early.stderr
    assert "stage=annotate" in early.stderr
    running = [
        subprocess.Popen(
            command("shares", "stage=annotate", f"shard={number}/2"),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    for process in running:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert "measured: share" in said
    assert len(parts_of(folder)) == 7
    (folder / "annotations" / parts_of(folder)[3]).unlink()
    of_a_killed_run = folder / "tasks/copies-0/looks"
    of_a_killed_run.mkdir(parents=True)
    late = curate("shares", "stage=finish")
    assert not of_a_killed_run.parent.exists()
    assert late.returncode == 2
    assert "1 of 7 tasks (6 images)" in late.stderr
    assert "shard=1/2, then" in late.stderr
    assert curate("shares", "stage=annotate", "shard=1/2").returncode == 0
    done = curate("shares", "stage=finish")
    assert done.returncode == 0, done.stderr
    assert "annotate:" not in done.stderr
    assert bytes_of(folder) == whole
    assert not (folder / "tasks").exists()


def test_other_settings_and_equal_shares_are_refused(command, curate, place):
    folder = place / "refused/small/curate"
    assert curate("refused", "stage=annotate", "shard=0/4").returncode == 0
    plan = read_plan(folder / "tasks")
    assert parts_of(folder) == [task.part for task in plan.tasks[0::4]]
    other = curate("refused", "stage=annotate", "shard=1/4", "dataset.limit=3")
    assert other.returncode == 2
    assert "listed with other settings" in other.stderr
    mistaken = curate("refused", "stage=finish", "dataset.limit=3")
    assert mistaken.returncode == 2
    assert "listed with other settings" in mistaken.stderr
    assert read_plan(folder / "tasks") == plan  # by which the shares go
    holding = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys; from pathlib import Path; from curate.run.locks import locked\n"
            f"with locked(Path({str(folder)!r}), shared=True), locked(Path({str(folder)!r}, 'tasks/shares/1-of-4')):\n"
            "    print('held', flush=True); sys.stdin.read()",
        ],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holding.stdout.readline() == "held\n"
    try:
        for more in (["stage=annotate", "shard=1/4"], []):
            busy = curate("refused", *more)
            assert busy.returncode == 75, busy.stderr
            assert f"process {holding.pid}" in busy.stderr
        assert curate("refused", "stage=annotate", "shard=2/4").returncode == 0
    finally:
        holding.communicate("")


def killed_when(command, root, ready, whom, *more):
    """Start a curation, and kill it, or a worker of it, once ``ready(folder)``."""
    process = subprocess.Popen(
        command(root, *more), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not ready():
            assert process.poll() is None
            time.sleep(0.005)
        for pid in whom(process.pid):
            os.kill(pid, signal.SIGKILL)
    finally:
        code = process.wait(timeout=600)
    return code


def workers_of(pid):
    """The processes of an engine, oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            line = (path / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and "worker_process" in line:
            found.append(int(path.name))
    return sorted(found)


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_a_killed_worker_does_not_matter(
    command, curate, place, bytes_of, whole
):
    engine = ["engine=processes", "engine.workers=2"]
    folder = place / "killed/small/curate"
    started = lambda: len(parts_of(folder)) > 1  # noqa: E731
    assert killed_when(command, "killed", started, lambda pid: [pid], *engine) == -signal.SIGKILL
    assert 1 < len(parts_of(folder)) < 8
    assert curate("killed", *engine).returncode == 0
    assert bytes_of(folder) == whole
    other = place / "worker/small/curate"
    one_part = lambda: len(parts_of(other)) > 0  # noqa: E731
    first = lambda pid: workers_of(pid)[:1]  # noqa: E731
    assert killed_when(command, "worker", one_part, first, *engine) == 0
    assert bytes_of(other) == whole


@pytest.fixture
def small(tiny_clip, make_pictures, tmp_path):
    """The settings of a curation of forty pictures in eight tasks, to be run in this process."""
    pictures = make_pictures(tmp_path / "few", 40)
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="small"),
        dataset=FolderConfig(name="small", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        split=SplitConfig(val=0.0, test=0.0, minimum=0),
        annotate=AnnotateConfig(images_per_part=5),
    )


def run_here(config, stage=None, shard=None, name="small", rate=None):
    """The folder of a curation, one stage or all of it."""
    rate = config.annotate.max_reject_rate if rate is None else rate
    full.run(
        replace(
            config,
            stage=stage,
            shard=shard,
            run=replace(config.run, name=name),
            annotate=replace(config.annotate, max_reject_rate=rate),
        ),
        readers.read(config.dataset),
    )
    return Path(config.run.root, name, "curate")


def test_what_cannot_be_read_is_tried_by_each_measuring_and_holds_up_no_finish(
    small, monkeypatch, bytes_of, capsys
):
    monkeypatch.setattr(heif, "_registered", lambda: False)
    picture = Path(small.dataset.root, "0007.png")
    picture.write_bytes(b"\0\0\0\x14ftypheic\0\0\0\0heic" + bytes(9))
    whole = bytes_of(run_here(small, name="plain"))
    for share in ("0/2", "1/2"):
        run_here(small, "annotate", share)
    capsys.readouterr()
    folder = run_here(small, "finish")
    assert "1 of 8 tasks have images that cannot be read" in capsys.readouterr().out
    assert bytes_of(folder) == whole
    assert dict(ledger.read(folder)["status"].value_counts()) == {"kept": 39, "unreadable": 1}
    seen = []
    monkeypatch.setattr(heif, "_registered", lambda: seen.append(1))
    run_here(small, name="plain")
    assert len(seen) == 1  # once in a command


def test_a_finish_that_stops_has_all_that_is_unreadable_behind_measured_again(
    small, monkeypatch, bytes_of
):
    """The shares let everything pass; the decoder is mended after the finish."""
    monkeypatch.setattr(rejects, "WINDOW", 10)
    whole = bytes_of(run_here(small, name="plain"))
    paths = sorted(Path(small.dataset.root).glob("*.png"))
    undecoded = {paths[number].read_bytes() for number in (*range(10, 16), 22, 38)}

    def broken(data):
        if data in undecoded:
            raise UnreadableImage("not an image")
        return probe(data)

    monkeypatch.setattr(measurer, "probe", broken)

    def measured():
        for share in ("0/2", "1/2"):
            run_here(small, "annotate", share, rate=1.0)

    shutil.rmtree(Path(small.run.root, ".cache"))  # which knows these pictures by now
    measured()
    folder = Path(small.run.root, "small", "curate")
    assert len(parts_of(folder)) == 8
    with pytest.raises(TooMany, match=r"6 of 10 images.* '0010\.png'"):
        run_here(small, "finish")
    assert [int(name.split("-")[1]) for name in parts_of(folder)] == [0, 1, 5, 6]
    undecoded.clear()
    measured()
    assert bytes_of(run_here(small, "finish")) == whole


def test_a_share_reads_nothing_of_what_another_has_measured(small, monkeypatch):
    run_here(small, "annotate", "0/2")
    monkeypatch.setattr(parquet, "_intact", set())  # as in another process
    monkeypatch.setattr(parquet, "digest_of", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(known, "_create_rows", lambda _, parts: pytest.fail(f"{parts}: indexed"))
    assert len(parts_of(run_here(small, "annotate", "1/2"))) == 8


def config(**more):
    return CurateConfig(dataset=FolderConfig(name="x", reader="folder", root="."), **more)


def test_part_is_the_name_of_dataset_shard():
    assert config(part="00/3").dataset.shard == "0/3"
    dataset = FolderConfig(name="x", reader="folder", root=".", shard="1/3")
    assert CurateConfig(dataset=dataset).part == "1/3"
    with pytest.raises(UserError, match=r"part=0/3 and dataset\.shard=1/3"):
        CurateConfig(dataset=dataset, part="0/3")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"shard": "0/2"}, r"type stage=annotate as well.*part=0/2"),
        ({"stage": "finish", "shard": "0/2"}, "leave shard=0/2 out"),
        ({"stage": "anotate"}, "Type stage=annotate"),
        ({"stage": "annotate", "shard": "2/2"}, "shard=2/2 is out of range"),
        ({"part": "3"}, "part=3 is out of range"),
        ({"stage": "annotate", "dry_run": 5}, "leave stage=annotate out"),
    ],
)
def test_what_does_not_go_together_is_refused(more, said):
    with pytest.raises(UserError, match=said):
        config(**more)

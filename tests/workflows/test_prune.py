"""What was not used for longest goes first, what is in use stays, and what is said is what was done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run.locks import locked
from curate.run.schema import Busy
from workflows.prune import prune

MB = 1_000_000
FILES = {  # by last use
    "latents/a/1.safetensors": 1,
    "annotations/b/part-2.parquet": 2,
    "latents/a/3.safetensors": 3,
    "shards/4.json": 4,
    "conditioning/c/5.safetensors": 5,
    "annotations/b/part-6.parquet": 6,
}


@pytest.fixture
def cache_dir(tmp_path):
    """Six files of a megabyte, each used at another second, one that a run has too, and strangers."""
    cache = tmp_path / "runs/.cache"
    for name, used in FILES.items():
        write(cache / name, used)
    own = write(tmp_path / "runs/mine/curate/annotations/part-0.parquet", 0)
    os.link(own, cache / "annotations/b/part-0.parquet")
    write(cache / "others/0.json", 0)
    (cache / "latents/a/.lock").touch()
    return cache


def write(path, used):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(MB))
    os.utime(path, ns=(used * 10**9, used * 10**9))
    return path


def there(cache):
    return {name for name in FILES if (cache / name).exists()}


@pytest.mark.parametrize(("keep", "left"), [(6, 6), (3.5, 3), (3, 3), (0, 0), (100, 6)])
def test_the_least_recently_used_go_until_the_rest_fits(cache_dir, keep, left):
    done = prune(cache_dir, int(keep * MB))
    assert there(cache_dir) == set(list(FILES)[len(FILES) - left :])
    assert [entry.path for entry in done.freed] == [
        cache_dir / name for name in list(FILES)[: len(FILES) - left]
    ]
    assert done.left == left * MB
    for stays in ("annotations/b/part-0.parquet", "others/0.json", "latents/a/.lock"):
        assert (cache_dir / stays).exists()


def test_what_a_command_uses_stays(cache_dir):
    with locked(cache_dir / "latents/a", shared=True):
        done = prune(cache_dir, 3 * MB)
        assert there(cache_dir) == {
            "latents/a/1.safetensors",
            "latents/a/3.safetensors",
            list(FILES)[-1],
        }
        assert done.left == 3 * MB
        assert [str(cache_dir / "latents/a") in reason for reason in done.busy] == [True]
    prune(cache_dir, 0)
    assert there(cache_dir) == set()


def test_two_prunings_or_a_removal_exclude_each_other(cache_dir):
    with locked(cache_dir), pytest.raises(Busy):
        prune(cache_dir, 0)
    assert there(cache_dir) == set(FILES)


def test_a_trial_deletes_nothing_and_says_the_same(cache_dir):
    said = [entry.path for entry in prune(cache_dir, MB, dry_run=True).freed]
    assert there(cache_dir) == set(FILES)
    assert said == [entry.path for entry in prune(cache_dir, MB).freed]


def test_killed_in_between_the_rest_goes_next_time(cache_dir, monkeypatch):
    real, calls = Path.unlink, iter(range(2))

    def killed(path, **options):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(cache_dir, MB)
    assert there(cache_dir) == set(list(FILES)[2:])
    prune(cache_dir, MB)
    assert there(cache_dir) == {list(FILES)[-1]}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "workflows.prune", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ,
    )  # fmt: skip


def test_the_command(cache_dir):
    root = cache_dir.parent
    look = command("--root", root)
    assert look.returncode == 0, look.stderr
    assert f"{cache_dir} holds 6.0 MB" in look.stdout
    assert "annotations     2.0 MB in 2 files, and 1 that runs have too" in look.stdout
    assert f"python -m workflows.prune --root {root} --keep-gb N" in look.stdout
    tried = command("--root", root, "--keep-gb", "0.0035", "--dry-run")
    assert "would free 3.0 MB" in tried.stdout
    assert there(cache_dir) == set(FILES)
    done = command("--root", root, "--keep-gb", "0.0035")
    assert done.returncode == 0, done.stderr
    assert "freed 3.0 MB" in done.stdout
    lines = done.stdout.partition("freed")[2].splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [
        ["annotations", "1.0"],
        ["latents", "2.0"],
        ["conditioning", "0.0"],
        ["listings", "0.0"],
    ]


def test_the_command_says_who_uses_what_is_left(cache_dir):
    holding = (
        "import sys, pathlib; from curate.run.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), shared=True): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", holding, cache_dir / "latents/a"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    enough = command("--root", cache_dir.parent, "--keep-gb", "0.002")
    busy = command("--root", cache_dir.parent, "--keep-gb", "0.001")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert enough.returncode == 0
    assert busy.returncode == 75
    assert (
        f"holds 2.0 MB, as some is in use: another process is at work in {cache_dir}/latents/a"
        in busy.stderr
    )
    assert f"process {holder.pid}" in busy.stderr


@pytest.mark.parametrize(
    "arguments", [["--keep-gb", "-1"], ["--keep-gb", "nan"], ["--keep-gb", "x"]]
)
def test_a_wrong_limit_is_refused(cache_dir, arguments):
    done = command("--root", cache_dir.parent, *arguments)
    assert done.returncode == 2
    assert "--keep-gb" in done.stderr
    assert there(cache_dir) == set(FILES)


def test_a_root_that_is_not_there_is_named(tmp_path):
    done = command("--root", tmp_path / "nowhere")
    assert done.returncode == 2
    assert f"there is no folder {tmp_path}/nowhere; type --root FOLDER" in done.stderr
    (tmp_path / "runs").mkdir()
    assert command("--root", tmp_path / "runs", "--keep-gb", "0").returncode == 0
    assert not (tmp_path / "runs/.cache").exists()

"""A disk that is full: one paragraph, nothing half written, and the same command ends it with the same bytes."""

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.annotate.embeddings import Embeddings
from curate.clip.config import ClipConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import full as pipeline
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import cli as command
from curate.run.config import RunConfig
from curate.run.files import atomic_write

NOBODY = 65_534


def curate(tiny_clip, pictures, root):
    config = CurateConfig(
        run=RunConfig(root=str(root), name="small"),
        dataset=FolderConfig(name="small", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        shards=ShardsConfig(max_samples=10),
        annotate=AnnotateConfig(images_per_part=10),
    )
    command.run(lambda: pipeline.run(config, readers.read(config.dataset)))
    return root / "small" / "curate"


@pytest.mark.parametrize("as_table", [False, True])
def test_a_file_that_does_not_fit_leaves_none(small_disk, as_table):
    path = small_disk / "a.parquet"
    path.write_bytes(b"old")
    table = pa.table({"a": [os.urandom(1 << 20)]})

    def write():
        with atomic_write(path) as stream:
            if as_table:
                pq.write_table(table, stream)
            else:
                stream.write(os.urandom(1 << 20))

    with pytest.raises(OSError, match="No space") as refused:
        write()
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.filename == str(path)
    assert [found.name for found in small_disk.iterdir()] == ["a.parquet"]
    assert path.read_bytes() == b"old"


def embeddings(folder, count=512):
    """The embeddings of a part in ``folder``, equal, so that the part is small."""
    vector = np.ones(64, np.float32).tobytes()
    pq.write_table(pa.table({"image_embedding": pa.array([vector] * count)}), folder / "0.parquet")
    return Embeddings([folder / "0.parquet"])


def test_vectors_that_do_not_fit_are_told_before_one_is_written(small_disk):
    embedded = embeddings(small_disk)
    with embedded.images_on_disk(np.arange(256)) as vectors:
        assert isinstance(vectors, np.memmap)
        assert (vectors == 1).all()
        assert [found.name for found in small_disk.iterdir()] == ["0.parquet"]
    del vectors
    (small_disk / "ballast").write_bytes(bytes(200 * 1024))
    with pytest.raises(OSError, match="No space") as refused:
        embedded.images_on_disk(np.arange(256)).__enter__()
    assert refused.value.filename == str(small_disk)
    assert {found.name for found in small_disk.iterdir()} == {"0.parquet", "ballast"}


def test_vectors_are_not_mapped_where_the_system_has_no_room(tmp_path, monkeypatch, capsys):
    embedded, asked = embeddings(tmp_path), []

    def refuse(file, offset, size):
        asked.append((offset, size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(SystemExit) as leaving:
        command.run(lambda: embedded.images_on_disk(np.arange(512)).__enter__())
    assert leaving.value.code == command.EXIT_USER_ERROR
    assert asked == [(0, 512 * 64 * 4)]
    assert f"error: {tmp_path}: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kilobytes",
    [pytest.param(40, marks=pytest.mark.slow), 100, pytest.param(160, marks=pytest.mark.slow)],
)
def test_a_run_on_a_full_disk_ends_politely_and_resumes(
    kilobytes, small_disk, tiny_clip, pictures, tmp_path, bytes_of, capsys
):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * (256 - kilobytes)))
    with pytest.raises(SystemExit) as leaving:
        curate(tiny_clip, pictures, small_disk)
    assert leaving.value.code == command.EXIT_USER_ERROR
    said = capsys.readouterr().err.rpartition("error: ")[2].strip()
    assert "No space left on device" in said
    assert "\n" not in said
    curate_dir = small_disk / "small" / "curate"
    assert not list(curate_dir.rglob("*.part"))
    assert not (curate_dir / "manifest.json").exists()
    whole = bytes_of(curate(tiny_clip, pictures, tmp_path / "elsewhere"))
    written = {
        name: found for name, found in bytes_of(curate_dir).items() if not name.startswith("tasks/")
    }
    assert written.items() <= whole.items()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert bytes_of(curate(tiny_clip, pictures, small_disk)) == whole


def test_a_disk_that_is_read_only_is_named(small_disk, tiny_clip, pictures, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SystemExit) as leaving:
        curate(tiny_clip, pictures, small_disk)
    assert leaving.value.code == command.EXIT_USER_ERROR
    assert f"{small_disk}/small: Read-only file system; let this user" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_named(make_pictures, capsys):
    """Root may read anything, so that it has to be somebody else for a moment."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        make_pictures(Path(name, "pictures"), 2)
        closed = make_pictures(Path(name, "pictures", "closed"), 2)
        closed.chmod(0)
        config = FolderConfig(name="small", reader="folder", root=f"{name}/pictures")
        os.seteuid(NOBODY)
        try:
            with pytest.raises(SystemExit) as leaving:
                command.run(lambda: list(readers.read(config).candidates()))
        finally:
            os.seteuid(0)
    assert leaving.value.code == command.EXIT_USER_ERROR
    assert f"error: {closed}: Permission denied; let this user" in capsys.readouterr().err

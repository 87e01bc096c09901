"""Arrays in files: equal after reading, and a full disk is noticed whatever the size."""

import errno

import numpy as np
import pytest

from curate.run import arrays


def test_what_is_written_is_read(tmp_path):
    blocks = [np.arange(6, dtype=np.int32).reshape(3, 2), np.zeros((0, 2), np.int32)]
    blocks.append(np.arange(20, dtype=np.int32).reshape(4, 5)[:, :2])  # not contiguous
    with arrays.writing(tmp_path, "some", "none") as (some, none):
        for block in blocks:
            some.write(block)
        none.write(blocks[1])
    read = arrays.mapped(tmp_path, "some", np.int32, (7, 2))
    assert read.tolist() == np.concatenate(blocks).tolist()
    assert arrays.mapped(tmp_path, "none", np.int32, (0, 2)).shape == (0, 2)


def test_a_file_that_is_too_short_is_refused(tmp_path):
    with arrays.writing(tmp_path, "short") as (short,):
        short.write(np.arange(9))
    with pytest.raises(ValueError, match="size"):
        arrays.mapped(tmp_path, "short", np.int64, (10,))


@pytest.mark.parametrize("count", [10, 1_000, 1_000_000])
def test_a_full_disk_is_noticed_and_named(tmp_path, count):
    (tmp_path / "full.bin").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match="No space") as raised,
        arrays.writing(tmp_path, "full") as (full,),
    ):
        full.write(np.zeros(count))
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path / "full.bin")

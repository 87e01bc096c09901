"""Stored arrays: equal bytes, and every flipped bit is noticed or changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from finetune import npz

ARRAYS = {"keys": np.array(["a", "bb"]), "val": np.linspace(0, 1, 6, dtype=np.float32)}


def same(found: dict[str, np.ndarray]) -> bool:
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in ARRAYS.items()
    )


def test_what_was_written_is_read_also_by_numpy(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(path, ARRAYS)
    whole = path.read_bytes()
    assert same(npz.read(path))
    with np.load(path) as stored:
        assert same({name: stored[name] for name in stored.files})
    npz.write(path, ARRAYS)
    assert path.read_bytes() == whole
    np.savez(path, **ARRAYS)  # as an earlier release did
    assert same(npz.read(path))


def test_any_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(path, ARRAYS)
    whole, noticed = path.read_bytes(), 0
    for bit in range(0, 8 * len(whole), 3):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert same(npz.read(path)), f"bit {bit}"
        except npz.DamagedArrays:
            noticed += 1
    assert noticed > 0.98 * 8 * len(whole) / 3
    path.write_bytes(whole[:-90])
    with pytest.raises(npz.DamagedArrays):
        npz.read(path)

"""Packs find entries by hash among any number of files, and are safe from damage and from each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.cache.packs import Packs, content_hash, hashes, write_pack
from finetune.cache.rows import Rows


def written(folder, *groups):
    """One file for each group of numbers; the entry of number n holds n."""
    for numbers in groups:
        tensor = torch.tensor(numbers, dtype=torch.float32)[:, None]
        write_pack(folder, [key(n) for n in numbers], {"value": tensor})
    return folder


def key(number):
    return content_hash(str(number).encode())


def test_entries_are_found_wherever_they_lie(tmp_path):
    written(tmp_path, range(0, 50), range(200, 300), range(40, 60))
    packs = Packs(tmp_path, check=True)
    wanted = [299, 7, 45, 59, 200, 7]
    rows = packs.rows(packs.find(hashes([key(n) for n in wanted])))
    assert rows.take(range(6))["value"].flatten().tolist() == wanted
    assert rows.take([3, 3])["value"].flatten().tolist() == [59, 59]
    places = packs.find(hashes([key(n) for n in range(320)]))
    assert np.flatnonzero(places < 0).tolist() == [*range(60, 200), *range(300, 320)]
    assert packs.hold([[key(1), key(2)], [], [key(1), key(100)]]) == [True, True, False]
    assert packs.hold([]) == []


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    packs = Packs(tmp_path / "none", check=True)
    assert packs.find(hashes([key(1)])).tolist() == [-1]
    assert packs.find(hashes([])).tolist() == []


def test_hashes_that_end_in_zeros_or_differ_in_one_bit_are_told_apart(tmp_path):
    """NumPy's fixed strings drop zeros at the end; of equal lengths none can be confused."""
    rng = np.random.default_rng(0)
    base = [bytes(rng.integers(0, 2, 32, np.uint8)) for _ in range(200)]
    base += [bytes(31) + b"\1", b"\1" + bytes(31), bytes(32), b"\0\1" + bytes(30)]
    base = list(dict.fromkeys(base))
    values = torch.arange(len(base)).float()[:, None]
    write_pack(tmp_path, base, {"value": values})
    packs = Packs(tmp_path, check=True)
    found = packs.rows(packs.find(hashes(base))).take(range(len(base)))["value"]
    assert torch.equal(found, values)
    assert packs.find(hashes([b"\0\2" + bytes(30), b"\1" * 32])).tolist() == [-1, -1]


def test_a_file_is_checked_when_it_is_used_and_only_then(tmp_path, capsys):
    written(tmp_path, range(10), range(100, 110))
    for path in tmp_path.iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    packs = Packs(tmp_path, check=True)
    assert packs.find(hashes([key(50)])).tolist() == [-1]
    assert capsys.readouterr().out == ""
    assert packs.find(hashes([key(3), key(50)])).tolist() == [-1, -1]
    assert capsys.readouterr().out.count("is damaged") == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_does_not_hide_the_entry_of_another(tmp_path):
    written(tmp_path, range(10), range(5, 20))
    one, other = sorted(tmp_path.iterdir())
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    packs = Packs(tmp_path, check=True)
    [place] = packs.find(hashes([key(7)]))
    assert packs.rows(np.array([place])).take([0])["value"].item() == 7
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100])
def test_what_is_no_safetensors_is_deleted(tmp_path, content, capsys):
    path = tmp_path / f"{'0' * 64}.safetensors"
    path.write_bytes(content)
    assert Packs(tmp_path, check=True).find(hashes([key(1)])).tolist() == [-1]
    assert not path.exists()
    assert f"{path} is damaged" in capsys.readouterr().out


def test_rows_are_taken_in_any_order():
    files = [
        {"a": torch.arange(3), "b": torch.arange(6).reshape(3, 2)},
        {"a": torch.arange(10, 12)},
    ]
    files[1]["b"] = torch.arange(10, 14).reshape(2, 2)
    rows = Rows(files, np.array([1, 0, 0, 1]), np.array([1, 2, 0, 0]))
    assert len(rows) == 4
    assert rows.shape("b") == (2,)
    taken = rows.take(np.array([3, 0, 1]))
    assert taken["a"].tolist() == [10, 11, 2]
    assert taken["b"].tolist() == [[10, 11], [12, 13], [4, 5]]

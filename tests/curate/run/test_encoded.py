"""Removed pictures and captions leave packs and listings; all others stay as they are, and damage is no obstacle."""

import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from curate.run import encoded
from curate.run.encoded import KEYS, take_out


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def write_pack(folder, *names, columns=3):
    """One pack; the row of a name is made of its hash."""
    keys = np.array([[*digest(name)] for name in names], np.uint8)
    values = keys[:, :columns].astype(np.float32)
    half = np.stack([keys, keys], 1).astype(np.float16)
    content = save({KEYS: keys, "latent": values, "half": half})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    path.write_bytes(content)
    os.utime(path, ns=(5, 5))
    return path


def test_only_what_is_named_goes(tmp_path):
    one, two = tmp_path / "latents/one", tmp_path / "latents/two"
    untouched = write_pack(one, "p", "q")
    changed = write_pack(one, "a", "b", "c")
    emptied = write_pack(two, "b")
    caption = write_pack(tmp_path / "conditioning/x", "b", "c")  # as a picture's hash, of a caption
    found = take_out(tmp_path, {digest("b"), digest("no such")}, {digest("c")})
    assert found == {"latents": 2, "conditioning": 1}
    assert not any(path.exists() for path in (changed, emptied, caption))
    assert untouched.stat().st_mtime_ns == 5
    [left] = set(one.iterdir()) - {untouched}
    assert left.stem == hashlib.sha256(left.read_bytes()).hexdigest()
    assert left.stat().st_mtime_ns == 5
    expected = load_file(write_pack(tmp_path / "expected", "a", "c"))
    assert load_file(left).keys() == expected.keys()
    for name, rows in load_file(left).items():
        assert rows.dtype == expected[name].dtype
        np.testing.assert_array_equal(rows, expected[name])
    assert list(two.iterdir()) == []
    assert take_out(tmp_path, {digest("b")}, {digest("c")}) == {"latents": 0, "conditioning": 0}


def test_listings_that_name_a_picture_go(tmp_path):
    (tmp_path / "shards").mkdir()
    for name, pictures in (("one", "ab"), ("two", "cd")):
        content = {"pictures": [digest(each).hex() for each in pictures], "captions": [["x" * 64]]}
        body = json.dumps(content)
        (tmp_path / f"shards/{name}.json").write_text(f"{digest(body).hex()}\n{body}")
    assert take_out(tmp_path, {digest("b")}, set())["shards"] == 1
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["two.json"]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda c: c[:-1] + bytes([c[-1] ^ 1])])
def test_a_damaged_pack_is_deleted_with_a_line(tmp_path, capsys, damage):
    path = write_pack(tmp_path / "latents/one", "a", "b")
    path.write_bytes(damage(path.read_bytes()))
    take_out(tmp_path, {digest("a")}, set())
    assert not path.exists()
    assert f"{path} cannot be read; it was deleted" in capsys.readouterr().out


def test_killed_between_writing_and_deleting_the_same_again_completes_it(tmp_path, monkeypatch):
    path = write_pack(tmp_path / "latents/one", "a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(
            type(path), "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            take_out(tmp_path, {digest("a")}, set())
    take_out(tmp_path, {digest("a")}, set())
    packs = [load_file(pack) for pack in (tmp_path / "latents/one").glob("*.safetensors")]
    assert [pack[KEYS].tolist() for pack in packs] == [[[*digest("b")]]]


def test_an_empty_cache_is_no_obstacle(tmp_path):
    assert not any(take_out(tmp_path / "none", {digest("a")}, {digest("b")}).values())
    assert encoded.KEYS == "content_hashes"  # in the files of all users

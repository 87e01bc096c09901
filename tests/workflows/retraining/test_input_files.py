"""Which files are looked at, when they count as changed, and what is read."""

import hashlib
import os

import pytest

from workflows.retraining import input_files
from workflows.retraining.input_files import Listing, Root, digest, hashed, listed


def names(root, **options):
    return sorted(path for _, path in listed([root], **options))


def data(path, **options):
    return Root("data", str(path), "curate: dataset.root", **options)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.txt", "deep/c.png", "deep/er/d.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "pictures"


def test_a_folder_is_all_below_it_and_a_file_is_itself(folder):
    found = names(data(folder))
    assert found == [str(folder / n) for n in ("a.png", "b.txt", "deep/c.png", "deep/er/d.png")]
    assert names(data(folder / "a.png")) == [str(folder / "a.png")]
    assert names(data(folder / "nowhere")) == []
    assert len(names(data(folder, suffixes=(".png",)))) == 3


def test_what_is_hidden_and_what_python_compiles_do_not_count(folder):
    before = names(data(folder))
    for name in (".DS_Store", ".cache/x", "deep/.git/y", "deep/__pycache__/z.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    assert names(data(folder)) == before


def test_the_runs_do_not_count_however_their_folder_is_called(folder, monkeypatch):
    before = names(data(folder))
    (folder / "runs" / "mine-0001").mkdir(parents=True)
    (folder / "runs" / "mine-0001" / "x").write_text("")
    (folder.parent / "link").symlink_to(folder / "runs")
    monkeypatch.chdir(folder.parent)
    for root in (folder / "runs", "pictures/runs", "pictures/../pictures/runs", "link"):
        assert names(data(folder), without=str(root)) == before


def test_links_are_followed_but_in_no_circle(folder):
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "self").symlink_to(folder / "self")
    (folder / "link.png").symlink_to(folder / "a.png")
    found = names(data(folder))
    assert len(found) == 5
    assert str(folder / "link.png") in found


def test_a_pattern_finds_what_is_there_by_now(folder):
    root = data(f"{folder}/**/*.png", pattern=True)
    assert len(names(root)) == 3
    (folder / "deep" / "e.png").write_text("")
    assert len(names(root)) == 4


def test_a_link_is_listed_under_its_own_name(folder, tmp_path):
    """So that one that leads elsewhere tomorrow is looked at there."""
    link = tmp_path / "latest"
    link.symlink_to(folder)
    before = listed([data(link)])
    other = tmp_path / "others"
    other.mkdir()
    (other / "x.png").write_text("x")
    link.unlink()
    link.symlink_to(other)
    after = listed([data(link)])
    assert {path for _, path in after} == {str(link / "x.png")}
    assert digest(before) != digest(after)


@pytest.mark.parametrize("change", ["content", "touch", "rename", "replace", "mode"])
def test_the_digest_sees_any_change_of_a_file(folder, change):
    before = digest(listed([data(folder)]))
    assert digest(listed([data(folder)])) == before
    path = folder / "a.png"
    if change == "content":
        path.write_text("a.gif")
    elif change == "touch":
        os.utime(path)
    elif change == "rename":
        path.rename(folder / "z.png")
    elif change == "mode":
        path.chmod(0o600)
    else:  # another file with the same size and time of change
        known = path.stat()
        other = folder.parent / "other"
        other.write_text("a.gif")
        os.utime(other, ns=(known.st_atime_ns, known.st_mtime_ns))
        other.replace(path)
    assert digest(listed([data(folder)])) != before


def test_only_what_differs_is_read(folder, monkeypatch):
    first = hashed(listed([data(folder)]), None)
    place = "data", str(folder / "a.png")
    assert first.hashes[place] == hashlib.sha256(b"a.png").hexdigest()
    read, real = [], input_files._sha256
    monkeypatch.setattr(input_files, "_sha256", lambda path: read.append(path) or real(path))
    os.utime(folder / "b.txt")
    (folder / "new.png").write_text("new")
    second = hashed(listed([data(folder)]), first)
    assert sorted(read) == [str(folder / "b.txt"), str(folder / "new.png")]
    assert (
        second.hashes["data", str(folder / "b.txt")] == first.hashes["data", str(folder / "b.txt")]
    )
    assert second.content() != first.content()
    read.clear()
    hashed(listed([data(folder)]), None)
    assert len(read) == 5


def test_a_file_that_goes_meanwhile_is_left_out(folder):
    stats = listed([data(folder)])
    (folder / "a.png").unlink()
    found = hashed(stats, None)
    assert len(found.hashes) == len(found.stats) == 3


ODD = ["a b", "a\tb", "a\nb", "a\\n", "ü\\ö", "\udcff", "日本\r", "\x85", "\u2028", "\\", "'\""]


def test_a_listing_survives_any_name(tmp_path):
    places = {("data", f"/x/{name}"): (n, n * 10**18, -1, 2**63) for n, name in enumerate(ODD)}
    written = Listing(places, {place: f"{n:064x}" for n, place in enumerate(places)})
    written.save(tmp_path / "inputs.tsv")
    assert Listing.load(tmp_path / "inputs.tsv") == written
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.tsv"]


@pytest.mark.parametrize("damage", ["data\t1\t2\n", "data\tx\t1\t1\t1\tsha\tname\n", None])
def test_a_damaged_listing_is_none(tmp_path, damage):
    if damage is not None:
        (tmp_path / "inputs.tsv").write_text(damage)
    assert Listing.load(tmp_path / "inputs.tsv") is None

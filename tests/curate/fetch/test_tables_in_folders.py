"""A table that is a folder or a glob stays as it is when its pictures are fetched into a folder near it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import readers
from curate.fetch import plan
from curate.readers.tables.entries import find
from curate.run.schema import UserError
from tests.curate.fetch.test_store import config_of, fetch, picture, write_table

PLAIN = {"columns": None, "quotes": True}  # parquet has names and types of its own


def write_parquet(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "url": [f"http://x/{n}.jpg" for n in numbers],
        "caption": [f"number {n}" for n in numbers],
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def tables(tmp_path):
    write_parquet(tmp_path / "set/a.parquet", range(5))
    write_parquet(tmp_path / "set/more/b.parquet", range(5, 10))
    return tmp_path / "set"


@pytest.mark.parametrize("images", ["set/images", "set-images", "set/more/images"])
@pytest.mark.parametrize("path", ["set", "set/**/*.parquet", "*/*.parquet"])
def test_what_was_fetched_below_a_table_is_no_part_of_it(
    tables, tmp_path, monkeypatch, path, images
):
    monkeypatch.chdir(tmp_path)
    before = [table.path for table in find(config_of(path, images, **PLAIN), [])]
    count = 5 * len(before)
    for asked in (count, 0, 0):
        found, states = fetch(path, tmp_path / images, **PLAIN)
        assert (len(found), sum(states.values())) == (asked, count)
    config = config_of(path, images, **PLAIN)
    assert [table.path for table in find(config, [])] == before
    source = readers.read(config)
    there = [each for each in source.candidates() if ".tar" in each.location]
    assert source.total == count
    numbers = [int(each.captions[0].split()[1]) for each in there]
    assert [source.load(each.location) for each in there] == [
        picture(number, "JPEG" if number % 8 else "PNG") for number in numbers
    ]
    assert numbers == [number for number in range(count) if number % 4 in (0, 3)]


def test_a_text_table_and_its_pictures_may_be_in_one_folder(tmp_path):
    write_table(tmp_path / "t.tsv", 5)
    fetch(tmp_path, tmp_path / "images")
    assert fetch(tmp_path, tmp_path / "images")[0] == []
    source = readers.read(config_of(tmp_path, tmp_path / "images"))
    assert len([*source.candidates()]) == 5


def test_pictures_of_img2dataset_below_a_table_are_no_part_of_it_but_may_be_all_of_it(tmp_path):
    write_parquet(tmp_path / "set/shards/00000.parquet", range(5))
    config = config_of(tmp_path / "set", tmp_path / "set/shards", **PLAIN)
    assert [table.path.name for table in find(config, [])] == ["00000.parquet"]
    write_parquet(tmp_path / "set/a.parquet", range(5))
    assert [table.path.name for table in find(config, [])] == ["a.parquet"]
    config = config_of(tmp_path / "set/shards", tmp_path / "set/shards", **PLAIN)
    assert [table.path.name for table in find(config, [])] == ["00000.parquet"]


def test_tables_beside_keep_their_pictures_when_these_were_fetched(tables, tmp_path):
    """The first of two tables in a folder is fetched and read; the other one is beside it."""
    path, images = tables / "a.parquet", tables / "images"
    write_parquet(tables / "c.parquet", range(20, 25))
    for asked in (5, 0):
        assert len(fetch(path, images, **PLAIN)[0]) == asked
    found = [each.location for each in readers.read(config_of(path, images, **PLAIN)).candidates()]
    assert [".tar" in location for location in found] == [True, False, False, True, True]


@pytest.mark.parametrize("path", ["set", "set/a.parquet", "set/*.parquet"])
def test_the_folder_of_the_table_is_no_folder_for_pictures(tables, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"set holds the table itself, .* type dataset\.images_dir=set-images$"
    ):
        fetch(path, tables.relative_to(tmp_path), **PLAIN)
    assert not (tables / plan.FILE).exists()


@pytest.mark.parametrize(
    ("path", "images"),
    [
        ("set", "set-images"),
        ("set/", "set-images"),
        ("set/a.parquet", "set/images"),
        ("set/**/*.parquet", "set-images"),
        ("set/more/../*.parquet", "set-images"),
        ("*.parquet", "NAME-images"),
        (".", "NAME-images"),
    ],
)
def test_the_folder_that_is_offered_is_outside_of_the_table(
    tables, tmp_path, monkeypatch, path, images
):
    monkeypatch.chdir(tmp_path)
    found = tmp_path / plan.beside(path)
    expected = (
        tmp_path.with_name(images.replace("NAME", tmp_path.name))
        if "NAME" in images
        else tmp_path / images
    )
    assert found == expected

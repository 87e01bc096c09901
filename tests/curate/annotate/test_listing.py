"""The tasks of a pass: candidates read back as they were given, parts named as ever, and plans that stay."""

import datetime
import hashlib
import json
import random
from dataclasses import replace
from decimal import Decimal

import pytest

from curate.annotate.listing import make_plan, part_size, read_candidates, read_plan
from curate.annotate.parts import FORMAT
from curate.annotate.table import source_column
from curate.readers.candidate import Candidate
from curate.readers.companions import Companion
from curate.run.database import Limits
from curate.run.schema import UserError

VALUES = [
    *("", "text", "ünï 猫 \U0001f600", 'a "quote"\\', 0, -7, 2**62, 1.5, 1e300, -0.0, True, False, None),
    *([1, 2], ["a", None], [[1.5]], {"a": [1]}),
    *(datetime.date(2026, 11, 30), datetime.datetime(2026, 11, 30, 8, 30, 1, 5), b"bytes", Decimal("1.50")),
    *(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.time(8, 30)),
]  # fmt: skip


def drawn(count, seed=0):
    draw = random.Random(seed)
    found = []
    for number in range(count):
        columns = {f"c{n}": draw.choice(VALUES) for n in range(draw.randint(0, 4))}
        captions = tuple(f"a caption {draw.randrange(9)}" for _ in range(draw.randint(0, 3)))
        beside = (Companion("mask", f"{number}.mask.png", "v"),) if number % 5 == 0 else ()
        found.append(
            Candidate(f"k{number}", captions, "s", f"{number}.png", f"v{number}", columns, beside)
        )
    return found


def digest_of_old(chunk, clip_model):
    """As every release has named parts."""
    digest = hashlib.blake2b(f"{FORMAT} {clip_model}".encode(), digest_size=8)
    for c in chunk:
        content = [c.key, c.version, c.location, c.captions, c.source]
        content.append(sorted(c.columns.items()))
        if c.companions:
            content.append([(each.kind, each.location, each.version) for each in c.companions])
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()


@pytest.fixture
def plan(tmp_path):
    def of(candidates, size=7, settings=""):
        return make_plan(
            candidates, tmp_path, "tiny 0", Limits(tmp_path / "scratch"), size, settings
        )

    return of


def test_candidates_read_back_as_they_were_given(plan, tmp_path):
    given = drawn(100)
    made = plan(iter(given))
    again = [c for task in made.tasks for c in read_candidates(tmp_path, task)]
    assert again == given
    for one, other in zip(again, given, strict=True):
        for name, value in one.columns.items():
            assert type(value) is type(other.columns[name])
    assert (made.images, made.pairs) == (100, sum(len(c.captions) or 1 for c in given))
    assert read_plan(tmp_path) == made


def test_what_arrow_does_not_hold_becomes_the_text_that_a_part_would_have(plan, tmp_path):
    given = [
        Candidate(f"k{n}", ("x",), "s", "", "", {"odd": value})
        for n, value in enumerate([1 + 2j, 3j, None])
    ]
    made = plan(given)
    [*found] = [c.columns["odd"] for c in read_candidates(tmp_path, made.tasks[0])]
    before = source_column([c.columns["odd"] for c in given])
    assert source_column(found).equals(before)


def test_parts_are_named_as_ever(plan):
    given = drawn(40)
    names = [task.part for task in plan(given).tasks]
    chunks = [given[start : start + 7] for start in range(0, 40, 7)]
    assert names == [
        f"part-{number:05d}-{digest_of_old(chunk, 'tiny 0')}.parquet"
        for number, chunk in enumerate(chunks)
    ]


def test_a_plan_knows_places_and_nothing_of_the_time(plan, tmp_path):
    given = drawn(40)
    first = plan(given, settings="a")
    whole = (tmp_path / "plan.json").read_bytes()
    image = row = 0
    for task in first.tasks:
        assert (task.image, task.row) == (image, row)
        image, row = image + task.images, row + task.rows
    assert plan(given, settings="a") == first
    assert (tmp_path / "plan.json").read_bytes() == whole
    shorter = plan(given[:10])
    assert shorter.tasks[0] == first.tasks[0]
    assert len(list((tmp_path / "list").iterdir())) == 2


def test_a_key_that_is_there_twice_leaves_no_plan(plan, tmp_path):
    given = drawn(20)
    plan(given)
    with pytest.raises(UserError, match="share the key 'k3'; rename"):
        plan([*given, replace(given[3], version="other"), given[9]])
    assert read_plan(tmp_path) is None


@pytest.mark.parametrize("change", [lambda whole: whole[:-3], lambda whole: whole[:-9] + b"x" * 9])
def test_a_damaged_list_is_named(plan, tmp_path, change):
    [task, *_] = plan(drawn(20)).tasks
    path = tmp_path / task.file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"00000\.parquet is damaged; type the same command"):
        read_candidates(tmp_path, task)
    path.unlink()
    with pytest.raises(UserError, match=r"00000\.parquet is missing"):
        read_candidates(tmp_path, task)


def test_an_empty_pass_has_no_tasks(plan, tmp_path):
    assert plan([]).tasks == ()
    assert read_plan(tmp_path).images == 0


def test_parts_grow_behind_the_first_million_and_appended_images_move_none():
    sizes = [part_size(number, None) for number in range(2048 * 8)]
    assert sum(sizes[:2048]) == 2**20
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[2048], sizes[-1]) == (512, 1024, 16_384)
    number = images = 0
    while images < 5e9:
        images, number = images + part_size(number, None), number + 1
    assert number < 320_000

"""The tasks of a curation: ranges of a source's candidates, written once to ``tasks/list``, and their plan."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate.parts import FORMAT
from curate.annotate.table import captions_of
from curate.readers.candidate import Candidate
from curate.readers.companions import Companion
from curate.run.database import Limits, connect, parquet_files
from curate.run.files import atomic_write, read_json, write_certified
from curate.run.progress import Bar
from curate.run.schema import UserError
from curate.run.typed_json import typed

PLAN = "plan.json"
LIST = "list"  # the folder of the candidates' files

# Parts grow with their number, and not with the size of the whole, so that appended images move none: the first
# million images are in parts of 512, five billion in a third of a million parts.
_FIRST_PART = 512
_EQUAL_PARTS = 2048  # until the next size, which is twice as large
_LARGEST_PART = 16_384

_OTHERS = b"others"  # in a list's metadata: the columns of values that JSON does not have
_REMEDY = "type the same command again once {} is deleted"


@dataclass(frozen=True, slots=True)
class Task:
    """A range of candidates, which become one part of the annotations.

    Attributes:
        number: 0 ... in input order.
        file: of its candidates, relative to the folder of all tasks.
        part: the name of the part.
        image, images: the first image's number in input order, and how many there are.
        row, rows: the same of the pairs.
        bytes, sha256: of the file.
    """

    number: int
    file: str
    part: str
    image: int
    images: int
    row: int
    rows: int
    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"images {self.image} to {self.image + self.images - 1}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All tasks of a pass over a source, in input order.

    Attributes:
        tasks: each with the file that says what it is about; nothing in them depends on the time.
        settings: a digest of the settings that the tasks depend on.
    """

    tasks: tuple[Task, ...]
    settings: str = ""

    @property
    def images(self) -> int:
        """How many there are in all tasks."""
        return sum(task.images for task in self.tasks)

    @property
    def pairs(self) -> int:
        """The same of the rows of the annotations."""
        return sum(task.rows for task in self.tasks)


def part_size(number: int, images_per_part: int | None) -> int:
    """The number of images in part ``number``, but for the last one.

    >>> part_size(0, None), part_size(2048, None), part_size(1_000_000, None), part_size(9, 5)
    (512, 1024, 16384, 5)
    """
    if images_per_part is not None:
        return images_per_part
    return min(_FIRST_PART << min(number // _EQUAL_PARTS, 5), _LARGEST_PART)


def make_plan(
    candidates: Iterable[Candidate],
    folder: Path,
    clip_model: str,
    limits: Limits,
    images_per_part: int | None = None,
    settings: str = "",
    total: int | None = None,
) -> Plan:
    """List the candidates of a source in one pass; ``read_plan`` gives the same afterwards.

    Args:
        candidates: the pass.
        folder: of all tasks.
        clip_model: see ``AnnotationSpec``.
        limits: of the search for keys that are there twice.
        images_per_part: see ``part_size``.
        settings: see ``Plan``.
        total: of images, if it is known.

    Raises:
        UserError: two images share a key.
    """
    (folder / PLAN).unlink(missing_ok=True)
    stream = iter(candidates)
    tasks: list[Task] = []
    image = row = 0
    with Bar(total=total, desc="list", unit="img", delay=1.0) as bar:
        while chunk := list(islice(stream, part_size(len(tasks), images_per_part))):
            task = _written(folder, chunk, len(tasks), image, row, clip_model)
            tasks.append(task)
            image, row = image + task.images, row + task.rows
            bar.update(task.images)
    for left in _lists_after(folder, len(tasks)):
        left.unlink()
    plan = Plan(tuple(tasks), settings)
    _check_keys(folder, plan, limits)
    write_certified(folder / PLAN, {"settings": settings, "tasks": [asdict(t) for t in tasks]})
    return plan


def read_plan(folder: Path) -> Plan | None:
    """The plan in a folder; None where there is none, or a damaged one."""
    content = read_json(folder / PLAN, sealed=True)
    if content is None:
        return None
    tasks = tuple(typed(Task, task, PLAN) for task in content["tasks"])
    return Plan(tasks, content["settings"])


def read_candidates(folder: Path, task: Task) -> list[Candidate]:
    """The candidates of a task, as the source gave them.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / task.file
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {_REMEDY.format(folder)}") from error
    if hashlib.sha256(content).hexdigest() != task.sha256:
        raise UserError(f"{path} is damaged; {_REMEDY.format(folder)}")
    table = pq.read_table(BytesIO(content))
    found = [json.loads(text) for text in table["content"].to_pylist()]
    for place, name in json.loads((table.schema.metadata or {}).get(_OTHERS, b"{}")).items():
        for one, value in zip(found, table[place].to_pylist(), strict=True):
            if value is not None:
                one[5] = [[n, value if n == name else v] for n, v in one[5]]
    return [_candidate(*one) for one in found]


def _candidate(
    key: str,
    version: str,
    location: str,
    captions: list[str],
    source: str,
    columns: list[tuple[str, Any]],
    companions: list[tuple[str, str, str]] | None = None,
) -> Candidate:
    beside = tuple(Companion(*each) for each in companions or ())
    return Candidate(key, tuple(captions), source, location, version, dict(columns), beside)


def _written(
    folder: Path, chunk: list[Candidate], number: int, image: int, row: int, clip_model: str
) -> Task:
    """Write the list of a task, which is not synced: a pass is short, and a damaged list is found by its hash."""
    encode = json.JSONEncoder(default=str).encode
    texts = [encode(_content(candidate)) for candidate in chunk]
    digest = hashlib.blake2b(f"{FORMAT} {clip_model}".encode(), digest_size=8)
    digest.update("".join(texts).encode())
    columns = {"key": pa.array([c.key for c in chunk], pa.string()), "content": pa.array(texts)}
    names: dict[str, str] = {}
    for name, values in _others(chunk):
        place = f"other-{len(names)}"
        names[place], columns[place] = name, values
    table = pa.table(columns).replace_schema_metadata({_OTHERS: json.dumps(names)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    content = buffer.getvalue()
    file = f"{LIST}/{number:05d}.parquet"
    with atomic_write(folder / file, sync=False) as stream:
        stream.write(content)
    return Task(
        number=number,
        file=file,
        part=f"part-{number:05d}-{digest.hexdigest()}.parquet",
        image=image,
        images=len(chunk),
        row=row,
        rows=sum(len(captions_of(candidate)) for candidate in chunk),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _content(c: Candidate) -> list[Any]:
    """What a part's name is a digest of: all of a candidate. Parts of sets without companions keep their names."""
    content: list[Any] = [c.key, c.version, c.location, c.captions, c.source]
    content.append(sorted(c.columns.items()))
    if c.companions:
        content.append([(each.kind, each.location, each.version) for each in c.companions])
    return content


_PLAIN = (str, int, float, bool, type(None))
_PLAIN_TYPES = frozenset(_PLAIN)


def _others(chunk: list[Candidate]) -> Iterator[tuple[str, pa.Array]]:
    """The values of columns that JSON does not have, such as dates, by name and type, as Arrow holds them.

    A value that Arrow does not give back stays the text that stands for it in the JSON: in a part it would become
    that text.
    """
    found: dict[tuple[str, type, bool], dict[int, Any]] = defaultdict(dict)
    for number, candidate in enumerate(chunk):
        if _PLAIN_TYPES.issuperset(map(type, candidate.columns.values())):
            continue
        for name, value in candidate.columns.items():
            if not isinstance(value, _PLAIN) and not _is_json(value):
                has_zone = getattr(value, "tzinfo", None) is not None
                found[name, type(value), has_zone][number] = value
    for (name, *_), values in found.items():
        try:
            column = pa.array([values.get(number) for number in range(len(chunk))])
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            continue
        again = column.to_pylist()
        if all(str(again[number]) == str(value) for number, value in values.items()):
            yield name, column


def _is_json(value: Any) -> bool:
    """Whether JSON gives a value back as it is."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value) and all(map(_is_json, value.values()))
    return isinstance(value, _PLAIN)


def _lists_after(folder: Path, count: int) -> Iterator[Path]:
    """The lists of an earlier pass that was longer."""
    for path in (folder / LIST).glob("*.parquet"):
        if int(path.stem) >= count:
            yield path


def _check_keys(folder: Path, plan: Plan, limits: Limits) -> None:
    """Refuse keys that are there twice; names the first of them in the order of the alphabet."""
    if not plan.tasks:
        return
    lists = [folder / task.file for task in plan.tasks]
    with connect(limits) as connection:
        twice = connection.sql(
            f"SELECT key FROM {parquet_files(lists)} GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1"
        ).fetchall()
    if twice:
        raise UserError(
            f"two images of this data set share the key {twice[0][0]!r}; rename one of them"
        )

"""CIFAR-10 in its Python version: captions are made from the ten labels by a template."""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import DatasetConfig
from curate.readers.files import among, version_of
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.run.schema import PATH, UserError, check

if TYPE_CHECKING:
    import numpy as np

_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_FILES = {  # https://www.cs.toronto.edu/~kriz/cifar.html
    "train": [f"data_batch_{number}" for number in range(1, 6)],
    "test": ["test_batch"],
}
_META = "batches.meta"
_SHAPE = (3, 32, 32)  # of a row: the red plane, the green one, the blue one
_ROW_BYTES = math.prod(_SHAPE)


@dataclass
class Cifar10Config(DatasetConfig):
    """CIFAR-10 as published for Python.

    Attributes:
        root: the archive, the folder it unpacks to, or the folder of either.
        template: the caption; ``{label}`` stands for the label's name.
        splits: some of train and test; null takes both.
    """

    root: str = field(default=MISSING, metadata=PATH)
    template: str = "a photo of a {label}"
    splits: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check("{label}" in self.template, "dataset.template", self.template, "a text with {label}")
        sound = self.splits is None or (self.splits and {*self.splits} <= {"train", "test"})
        check(bool(sound), "dataset.splits", self.splits, "null or some of [train,test]")


def reads(config: Cifar10Config) -> Reads:
    """The published files, packed or not."""
    root = Path(config.root)
    names = [_META, *(name for names in _FILES.values() for name in names)]
    unpacked = [folder / name for folder in (root / _FOLDER, root) for name in names]
    return among([root, root / _ARCHIVE, *unpacked])


@register_reader("cifar10", Cifar10Config, reads)
def read(config: Cifar10Config) -> Source:
    """List the images, the five training files before the test file, each with one caption.

    Raises:
        FileNotFoundError: neither the folder nor the archive is at ``config.root``.
        UserError: a file is not CIFAR-10's.
    """
    root, files = _open(Path(config.root))
    names = _labels(root, files)
    batches = {
        batch: _batch(root, batch, files, len(names))
        for split in config.splits or _FILES
        for batch in _FILES[split]
    }
    candidates = [
        candidate
        for batch, content in batches.items()
        for candidate in _candidates(
            config, batch, content, names, version_of(root / batch if root.is_dir() else root)
        )
    ]

    return Source.of(candidates, _Pictures(config.root, {n: b["data"] for n, b in batches.items()}))


class _Pictures:
    """The source's ``load``; in another process it reads the files again, which have 30 MB each."""

    def __init__(self, root: str, planes: Mapping[str, np.ndarray] | None = None) -> None:
        self._root, self._planes = root, dict(planes or {})
        self._lock = Lock()  # pictures are loaded by several threads

    def __call__(self, location: str) -> bytes:
        batch, _, row = location.partition(":")
        with self._lock:
            if batch not in self._planes:
                root, files = _open(Path(self._root))
                self._planes[batch] = _batch(root, batch, files, len(_labels(root, files)))["data"]
        return png(self._planes[batch][int(row)])

    def __reduce__(self) -> tuple[type[_Pictures], tuple[str]]:
        return _Pictures, (self._root,)


def png(row: np.ndarray) -> bytes:
    """A row of 3,072 uint8 as the bytes of a PNG of 32 x 32 pixels; same row, same bytes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(row.reshape(_SHAPE).transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def _open(root: Path) -> tuple[Path, dict[str, bytes]]:
    """The folder or archive that was found, and the content of its files by name."""
    folder = next((f for f in (root / _FOLDER, root) if (f / _META).is_file()), None)
    if folder:
        names = [_META, *(name for names in _FILES.values() for name in names)]
        return folder, {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    archive = next((a for a in (root, root / _ARCHIVE) if a.is_file()), None)
    if archive is None:
        raise FileNotFoundError(
            f"dataset.root={root} holds neither {_FOLDER}/{_META} nor {_ARCHIVE}; download the Python "
            f"version from cs.toronto.edu/~kriz/cifar.html and type dataset.root={_ARCHIVE} or its folder"
        )
    try:
        with tarfile.open(archive) as tar:
            found = [(member, tar.extractfile(member)) for member in tar if member.isreg()]
            return archive, {Path(member.name).name: f.read() for member, f in found if f}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); download it again") from error


class _Unpickler(pickle.Unpickler):
    """Builds numbers, texts, containers and numpy arrays, and refuses any other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _numpy_parts():
            return _numpy_parts()[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


@cache
def _numpy_parts() -> dict[str, Any]:
    """What the pickle of an array calls. numpy says where ``_reconstruct`` is: it moved between versions."""
    import numpy as np

    reconstruct = np.empty(0).__reduce__()[0]
    return {"_reconstruct": reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}


def _load(root: Path, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    if name not in files:
        raise UserError(f"{root} lacks {name}; unpack {_ARCHIVE} again")
    try:
        # Python 2 wrote these files; its numpy arrays need latin1.
        content = _Unpickler(io.BytesIO(files[name]), encoding="latin1").load()
    except Exception as error:  # unpickling raises any error on bytes that are not a pickle
        raise UserError(f"{root}: {name} is not a file of CIFAR-10 ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{root}: {name} is not a file of CIFAR-10; it holds no dictionary")
    return content


def _labels(root: Path, files: dict[str, bytes]) -> list[str]:
    names = _load(root, _META, files).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{root}: {_META} is not CIFAR-10's: 'label_names' is missing")
    return names


def _batch(root: Path, name: str, files: dict[str, bytes], labels: int) -> dict[str, Any]:
    """One file's ``data``, uint8 of (N, 3072), and its N ``labels``, each below ``labels``."""
    import numpy as np

    content = _load(root, name, files)
    data, given = content.get("data"), content.get("labels")
    sound = (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.ndim == 2
        and data.shape[1] == _ROW_BYTES
        and isinstance(given, list)
        and len(given) == len(data)
        and all(isinstance(label, int) and 0 <= label < labels for label in given)
    )
    if not sound:
        raise UserError(
            f"{root}: {name} is not CIFAR-10's: it needs 'data', rows of {_ROW_BYTES} uint8, and a label "
            "for each row in 'labels'"
        )
    return content


def _candidates(
    config: Cifar10Config, batch: str, content: dict[str, Any], names: list[str], version: str
) -> Iterator[Candidate]:
    split = next(split for split, batches in _FILES.items() if batch in batches)
    files = content.get("filenames", [])
    for row, label in enumerate(content["labels"]):
        yield Candidate(
            key=key_of(f"{batch}-{row:05d}"),
            captions=(clean_caption(config.template.replace("{label}", names[label])),),
            source=config.name,
            location=f"{batch}:{row}",
            version=version,
            columns={
                "label": names[label],
                "source_split": split,
                "file_name": str(files[row]) if row < len(files) else "",
            },
        )

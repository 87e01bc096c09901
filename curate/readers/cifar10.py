"""CIFAR-10 in Python's own format: ten labels, for which a template makes captions."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import Cifar10Config
from curate.readers.files import version_of
from curate.readers.source import Source
from curate.run.cli import UserError

_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_FILES = {  # https://www.cs.toronto.edu/~kriz/cifar.html
    "train": [f"data_batch_{number}" for number in range(1, 6)],
    "test": ["test_batch"],
}
_META = "batches.meta"
_SHAPE = (3, 32, 32)  # of a row: the red plane, the green one, the blue one

# All that these files need to be built again. What numpy's own pickles call is found by asking it:
# the name of its module has changed between versions.
_ADMITTED = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Builds numbers, texts, containers and numpy arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _ADMITTED:
            return _ADMITTED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


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

    def load(location: str) -> bytes:
        batch, _, row = location.partition(":")
        return png(batches[batch]["data"][int(row)])

    return Source.of(candidates, load)


def png(row: np.ndarray) -> bytes:
    """A row of 3,072 uint8 as the bytes of a PNG of 32 x 32 pixels; same row, same bytes."""
    stream = io.BytesIO()
    Image.fromarray(row.reshape(_SHAPE).transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def _open(root: Path) -> tuple[Path, dict[str, bytes]]:
    """What was found, folder or archive, and the files in it by name."""
    folder = next((f for f in (root / _FOLDER, root) if (f / _META).is_file()), None)
    if folder:
        names = [_META, *(name for names in _FILES.values() for name in names)]
        return folder, {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    archive = next((a for a in (root, root / _ARCHIVE) if a.is_file()), None)
    if archive is None:
        raise FileNotFoundError(
            f"dataset.root={root} holds neither {_FOLDER}/{_META} nor {_ARCHIVE}; take the Python version "
            f"from cs.toronto.edu/~kriz/cifar.html and type dataset.root={_ARCHIVE} or its folder"
        )
    try:
        with tarfile.open(archive) as tar:
            found = [(member, tar.extractfile(member)) for member in tar if member.isreg()]
            return archive, {Path(member.name).name: f.read() for member, f in found if f}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); fetch it again") from error


def _load(root: Path, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    if name not in files:
        raise UserError(f"{root} lacks {name}; unpack {_ARCHIVE} again")
    try:
        # Python 2 wrote them; latin1 is how numpy's arrays of that time are read.
        content = _Unpickler(io.BytesIO(files[name]), encoding="latin1").load()
    except Exception as error:  # unpickling raises anything on bytes that are no pickle
        raise UserError(f"{root}: {name} is no file of CIFAR-10 ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{root}: {name} is no file of CIFAR-10; it holds no dictionary")
    return content


def _labels(root: Path, files: dict[str, bytes]) -> list[str]:
    names = _load(root, _META, files).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{root}: {_META} is not CIFAR-10's: 'label_names' is missing")
    return names


def _batch(root: Path, name: str, files: dict[str, bytes], labels: int) -> dict[str, Any]:
    content = _load(root, name, files)
    data, given = content.get("data"), content.get("labels")
    sound = (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.ndim == 2
        and data.shape[1] == np.prod(_SHAPE)
        and isinstance(given, list)
        and len(given) == len(data)
        and all(isinstance(label, int) and 0 <= label < labels for label in given)
    )
    if not sound:
        raise UserError(
            f"{root}: {name} is not CIFAR-10's: 'data' of rows of 3072 uint8 and as many 'labels'"
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

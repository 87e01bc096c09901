"""CIFAR-10 in files as Python 2 wrote them."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from curate import readers
from curate.measures.decode import decode
from curate.readers.cifar10 import Cifar10Config
from curate.run.schema import UserError

NAMES = ["airplane", "automobile", "bird"]


class Python2Pickler(pickle._Pickler):
    """Protocol 2 with byte strings, and the module that numpy had then."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 (as the base class has it)

    def save_string(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.write(b"T" + len(data).to_bytes(4, "little") + data)  # BINSTRING
        self.memoize(text)

    def save_function(self, function, name=None):
        assert function.__name__ == "_reconstruct"
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.memoize(function)

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[type(np.empty(0).__reduce__()[0])] = save_function


def python2_pickle(value):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


@pytest.fixture(scope="module")
def files():
    draw = np.random.default_rng(0)
    made = {"batches.meta": {"label_names": NAMES, "num_vis": 3072}}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = draw.integers(0, len(NAMES), 4).tolist()
        made[name] = {
            "batch_label": name,
            "labels": labels,
            "data": draw.integers(0, 256, (4, 3072), dtype=np.uint8),
            "filenames": [f"{NAMES[label]}_s_{i}.png" for i, label in enumerate(labels)],
        }
    return made


@pytest.fixture
def root(tmp_path, files):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(python2_pickle(content))
    return tmp_path


def cifar(root, **options):
    return readers.read(Cifar10Config(name="cifar10", reader="cifar10", root=str(root), **options))


def test_every_row_is_a_picture_with_its_labels_caption(root, files):
    source = cifar(root)
    candidates = list(source.candidates())
    assert (len(candidates), source.total) == (24, 24)
    assert len({c.key for c in candidates}) == 24
    for number, candidate in enumerate(candidates):
        name = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"][number // 4]
        content, row = files[name], number % 4
        label = NAMES[content["labels"][row]]
        assert candidate.captions == (f"a photo of a {label}",)
        assert candidate.columns["label"] == label
        assert candidate.columns["file_name"] == content["filenames"][row]
        assert candidate.columns["source_split"] == ("test" if name == "test_batch" else "train")
        red, green, blue = np.moveaxis(np.asarray(decode(source.load(candidate.location))), 2, 0)
        assert np.concatenate([red.ravel(), green.ravel(), blue.ravel()]).tolist() == (
            content["data"][row].tolist()
        )


def test_archive_folder_and_templates(root):
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    source = cifar(root / "cifar-10-batches-py")
    packed = cifar(root / "cifar-10-python.tar.gz", splits=["test"], template="a {label}, small")
    assert [c.key for c in packed.candidates()] == [c.key for c in source.candidates()][20:]
    first = next(packed.candidates())
    assert first.captions == (f"a {first.columns['label']}, small",)
    assert packed.load(first.location) == source.load(first.location)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(print, protocol=2),
        b"cnumpy.testing\nassert_equal\n.",
        b"cnumpy\nload\n.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"no pickle",
        python2_pickle([1]),
        python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 3]}),
        python2_pickle({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}),
        python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
    ],
)
def test_other_files_are_refused_by_name(root, content):
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match="data_batch_3"):
        cifar(root)


def test_what_is_missing_is_said(root, tmp_path_factory):
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(UserError, match="lacks test_batch"):
        cifar(root)
    assert len(list(cifar(root, splits=["train"]).candidates())) == 20
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz"):
        cifar(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UserError, match=r"dataset\.template"):
        cifar(root, template="a photo")

"""Decisions about the house that a later change must not undo unnoticed."""

import ast
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("curate", "finetune", "evaluate", "workflows")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NO_HOME = {"utils", "common", "helpers", "misc", "base"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_resolve_into_this_checkout(package):
    """Hugging Face's `evaluate` has the import name of ours."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_files_say_their_purpose(path):
    source = path.read_text(encoding="utf-8")
    assert path.stem not in NO_HOME, "a thing belongs beside its producer"
    assert ast.get_docstring(ast.parse(source)), "the first line says the file's one purpose"


def test_no_module_of_finetune_shadows_an_installed_one():
    """`accelerate launch finetune/train.py` starts with finetune/ first on the path."""
    taken = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys()
    ours = {path.stem for path in (ROOT / "finetune").glob("*.py")} - {"__init__", "__main__"}
    assert not ours & taken


def test_train_defines_no_class():
    """Launched by path, a class in train.py would exist twice: in __main__ and in finetune.train."""
    tree = ast.parse((ROOT / "finetune" / "train.py").read_text(encoding="utf-8"))
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_writes_or_reads_pickles(path):
    source = path.read_text(encoding="utf-8")
    assert "torch.save(" not in source
    if relative(path) != "curate/readers/cifar10.py":  # CIFAR-10 is published as pickles
        assert "import pickle" not in source

"""CONTRIBUTING names only what is there, and its recipes touch no more files than they say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`([\w.<>-]+/[\w./<>-]*)`", TEXT)))
RECIPES = dict(re.findall(r"\*\*(A [\w-]+(?: [\w-]+)?)\.\*\*\n\n((?:.|\n)*?)(?=\n\*\*|\Z)", TEXT))

# Placeholders, a name of omegaconf, and three of Python.
ELSEWHERE = ("NAME", "TheConfig", "MISSING", "SimpleNamespace", "dataclass", "False")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_there(path):
    """Of one with a name to be chosen, the folder; files of the same kind are in it."""
    if "<" in path:
        assert list((ROOT / path).parent.glob(f"*{Path(path).suffix}"))
    else:
        assert (ROOT / path).exists()


def test_there_are_four_recipes():
    assert list(RECIPES) == ["A data source", "A filter", "A fine-tuning method", "A metric"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_each_kind_of_file_once(name):
    """The first step is Python, the second YAML, the third a test; each names the one file to touch."""
    steps = re.split(r"(?m)^\d\. ", RECIPES[name])[1:]
    named = [re.findall(r"`([\w.<>-]+/[\w./<>-]+)`", step)[:1] for step in steps]
    assert [len(paths) for paths in named] == [1, 1, 1]
    python, yaml, test = (paths[0] for paths in named)
    assert python.endswith(".py")
    assert yaml.startswith("conf/")
    assert yaml.endswith(".yaml")
    assert re.fullmatch(r"tests/.*/test_[\w<>]+\.py", test)


def test_every_decorator_and_class_of_the_recipes_exists():
    sources = "".join(
        path.read_text(encoding="utf-8")
        for package in ("curate", "finetune", "evaluate", "tests")
        for path in (ROOT / package).rglob("*.py")
    )
    quoted = re.findall(r"`([^`]+)`", "".join(RECIPES.values()))
    code = " ".join(text for text in quoted if "/" not in text)
    for word in ("DatasetConfig", "register_reader", "Source", "within", "STRICT", "CASES"):
        assert word in code
    for word in set(re.findall(r"@(\w+)|\b([A-Z][A-Za-z]{3,})\b", code)):
        name = word[0] or word[1]
        if name not in ELSEWHERE:
            assert re.search(rf"(def|class) {name}\b|\b{name}\b\s*(:[^=\n]+)?=", sources), name

"""The lineage of real trainings, of which the second started with the first one's export."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.finetune.conftest import make_config, pipeline_dir, run_training
from workflows.retraining import ancestry

__all__ = ["make_config", "pipeline_dir", "run_training"]


def test_a_picture_of_the_first_is_in_the_second(make_config, run_training):
    first = make_config("first", method="lora")
    run_training(first)
    second = make_config("second", method="lora", **{"method.init": "first"})
    run_training(second)
    root = Path(first.run.root)
    known = ancestry.models(root)
    assert ancestry.parents(known["second"], known) == ["first"]
    (picture,) = ancestry.pictures_of("train-003", root, known)
    uses = {use.run: use for use in ancestry.uses(picture, known)}
    assert uses["first"].side == uses["second"].side == "train"
    assert uses["second"].through == ("first",)
    assert uses["first"].exports == uses["second"].exports == ("finetune/export",)
    for number, file in enumerate(
        (first.folder / "export").glob("*.safetensors")
    ):  # either, anywhere
        copy = shutil.copy(file, root / f"copy-{number}.safetensors")
        assert ancestry.of_export(Path(copy), known) == ["first"]
    assert number == 1
    shutil.move(root / "first", root / "renamed")  # what was typed leads nowhere
    known = ancestry.models(root)
    assert ancestry.parents(known["second"], known) == ["renamed"]

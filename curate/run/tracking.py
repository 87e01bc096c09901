"""The curves of a stage in TensorBoard, W&B or MLflow, as accelerate writes them, from what its files hold.

They lie in the stage's folder ``tracking/``, which nothing reads: what is there is written again from the
stage's own files, so that a resumed training shows nothing that its checkpoint does not know. Nothing leaves
the machine unless the user says so by the tracker's own variables (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from curate.run.files import read_json, write_certified
from curate.run.schema import UserError, check

FOLDER = "tracking"
AUTO, NONE = "auto", "none"
PROJECT = "darkroom"  # in W&B; in MLflow the experiment

Point = tuple[int, Mapping[str, Any]]
"""A step, 0 where a stage has none, and values by name: numbers, and the paths of PNGs; others are left out."""

_NOT_IN_NAMES = re.compile(r"[^\w./ -]")  # of MLflow's metrics


class _Tracker:
    """One of accelerate's trackers, and what an earlier start left of the same stage.

    Attributes:
        folder: of its files.
        resumes: whether points come while the stage is at work, so that a later start goes on with them.
    """

    install: str  # the package's line for pip, see ``refuse_absent``
    tracker: Any  # accelerate's

    def __init__(self, folder: Path, resumes: bool) -> None:
        self.folder, self.resumes = folder, resumes

    @abstractmethod
    def start(self, stage_dir: Path, identity: str | None) -> str | None:
        """Begin to write.

        Args:
            stage_dir: the stage's folder, below the run's.
            identity: under which an earlier start wrote; None where there was none.

        Returns:
            Under which this one does; None where the tracker has none.
        """

    def has(self, step: int) -> bool:
        """Whether the points of this step are there already and cannot be written again."""
        del step
        return False

    def caught_up(self) -> None:
        """All that the stage's files hold is written, so that what an earlier start wrote may go."""

    def pictures(self, files: Mapping[str, Path], step: int) -> None:
        """Write pictures at a step."""
        from PIL import Image

        self.tracker.log_images({name: [Image.open(path)] for name, path in files.items()}, step)

    def finish(self) -> None:
        """All is written."""
        self.tracker.finish()


class _TensorBoard(_Tracker):
    install = '"darkroom[tracking]"'

    def pictures(self, files: Mapping[str, Path], step: int) -> None:
        import numpy as np
        from PIL import Image

        arrays = {n: np.asarray(Image.open(f).convert("RGB"))[None] for n, f in files.items()}
        self.tracker.log_images(arrays, step, dataformats="NHWC")

    def start(self, stage_dir: Path, identity: str | None) -> None:
        from accelerate.tracking import TensorBoardTracker

        self._former = [*self.folder.glob("events.out.tfevents.*")]
        # To whoever reads the former file as well, step 0 says that all of it is void.
        self.tracker = TensorBoardTracker(self.folder.name, self.folder.parent, purge_step=0)
        self.tracker.start()

    def caught_up(self) -> None:
        self.tracker.tracker.flush()
        for path in self._former:
            path.unlink()


class _Wandb(_Tracker):
    install = "wandb"

    def start(self, stage_dir: Path, identity: str | None) -> str:
        for name, value in (("MODE", "offline"), ("ERROR_REPORTING", "false"), ("CONSOLE", "off")):
            os.environ.setdefault(f"WANDB_{name}", value)
        from accelerate.tracking import WandBTracker

        self.folder.mkdir(parents=True, exist_ok=True)
        identity = identity if identity and self.resumes else uuid4().hex[:8]
        self.tracker = WandBTracker(
            PROJECT,
            dir=self.folder.parent,  # in which it makes the folder "wandb"
            name=_name(stage_dir),
            group=stage_dir.parent.name,
            job_type=stage_dir.name,
            id=identity,
            resume="allow",
        )
        self.tracker.start()
        self._first = self.tracker.tracker.step
        return identity

    def has(self, step: int) -> bool:
        return step < self._first  # on a server; an offline run begins with step 0

    def finish(self) -> None:
        current = Path(self.tracker.tracker.dir).resolve().parent
        super().finish()
        if current.name.startswith("offline-run-"):
            for path in self.folder.glob("offline-run-*"):
                if path.resolve() != current:
                    shutil.rmtree(path)


class _Mlflow(_Tracker):
    install = "mlflow-skinny"

    def start(self, stage_dir: Path, identity: str | None) -> str:
        for name in ("DISABLE_TELEMETRY", "ALLOW_FILE_STORE"):
            os.environ.setdefault(f"MLFLOW_{name}", "true")
        import mlflow  # type: ignore[import-not-found]
        from accelerate.tracking import MLflowTracker

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(self.folder.resolve().as_uri())
        self.tracker = MLflowTracker(PROJECT, run_name=_name(stage_dir))
        self.tracker.start()
        self._former = identity
        return self.tracker.tracker.info.run_id

    def pictures(self, files: Mapping[str, Path], step: int) -> None:
        for name, path in files.items():
            self.tracker.log_artifact(str(path), f"{name}/step-{step:08d}")

    def caught_up(self) -> None:
        if self._former:
            from mlflow import MlflowClient  # type: ignore[import-not-found]

            MlflowClient().delete_run(self._former)


_TRACKERS: dict[str, type[_Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
_ACCEPTED = ", ".join((AUTO, NONE, *_TRACKERS))


def check_names(tracker: Any) -> None:
    """Check the value of the key ``tracker``: ``auto``, ``none`` or null, or one or a list of the trackers.

    Raises:
        UserError: names what is not known, and what to type.
    """
    names = tracker if isinstance(tracker, list) else [tracker]
    for name in names:
        if isinstance(name, str) and "," in name:
            raise UserError(f"tracker={name}: several are a list; type 'tracker=[{name}]'")
        known = name in _TRACKERS or (name in (AUTO, NONE, None) and len(names) == 1)
        check(known, "tracker", name, _ACCEPTED)


def refuse_absent(tracker: Any) -> None:
    """Refuse a tracker whose package is not installed; nothing is imported.

    Raises:
        UserError: says what to type.
    """
    for name in chosen(tracker):
        if find_spec(name) is None:
            raise UserError(
                f"tracker={name} needs a package that is not installed; type: pip install {_TRACKERS[name].install}"
            )


def chosen(tracker: Any) -> Sequence[str]:
    """The names of the trackers; for ``auto`` TensorBoard where it is installed, else none."""
    if tracker == AUTO:
        return ("tensorboard",) if find_spec("tensorboard") else ()
    names = tracker if isinstance(tracker, list) else [tracker]
    return [name for name in dict.fromkeys(names) if name in _TRACKERS]


class Curves:
    """What a stage gives its trackers. Their errors end them, with a warning, and never the run."""

    def __init__(self, stage_dir: Path, names: Sequence[str], resumes: bool) -> None:
        self._stage_dir = stage_dir
        self._open: dict[str, _Tracker] = {}
        self._digest = hashlib.sha256()
        self._identities: dict[str, str | None] = {}
        self._names, self._resumes = names, resumes

    def start(self, points: Sequence[Point], more: bool) -> None:
        """Write what the stage's files hold, to the trackers that do not have just that.

        Args:
            points: all of them.
            more: whether others follow.
        """
        self._digest = _digest(points)
        for name in self._names:
            self._start(name, points, more)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Write values at a step."""
        self._digest.update(_line((step, values)))
        for name in [*self._open]:
            self._log(name, step, values)

    def finish(self) -> None:
        """End; all is written."""
        for name in [*self._open]:
            with self._guarded(name):
                self._open[name].finish()
                self._note(name, self._digest.hexdigest())
        self._open.clear()

    def _start(self, name: str, points: Sequence[Point], more: bool) -> None:
        known = read_json(self._state(name), sealed=True) or {}
        if not more and known.get("points") == self._digest.hexdigest():
            return
        with self._guarded(name):
            _settle_rank()
            tracker = _TRACKERS[name](self._folder / name, self._resumes)
            self._identities[name] = tracker.start(self._stage_dir, known.get("identity"))
            self._open[name] = tracker
            self._note(name, None)
        for step, values in points:
            self._log(name, step, values)
        if name in self._open:
            with self._guarded(name):
                self._open[name].caught_up()

    def _log(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        if name not in self._open or self._open[name].has(step):
            return
        named = self._named(values)
        numbers = {
            name: value
            for name, value in named.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        files = {name: value for name, value in named.items() if isinstance(value, Path)}
        with self._guarded(name):
            if numbers or not files:
                self._open[name].tracker.log(numbers, step=step)
            if files:
                self._open[name].pictures(files, step)

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same under ``<stage>/<name>``."""
        return {
            f"{self._stage_dir.name}/{_NOT_IN_NAMES.sub('_', name)}": value
            for name, value in values.items()
        }

    def _note(self, name: str, points: str | None) -> None:
        """Note under which identity a tracker writes, and, once it has all points, their digest."""
        content = {"identity": self._identities[name], "points": points}
        write_certified(self._state(name), content)

    def _state(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    @property
    def _folder(self) -> Path:
        return self._stage_dir / FOLDER

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of another's program; a run is worth more than its curves
            self._open.pop(name, None)
            print(
                f"warning: {name} failed ({type(error).__name__}: {error}) and gets no more of the curves of "
                f"{self._stage_dir}. The run goes on; the same command again writes all of them",
                file=sys.stderr,
            )


@contextmanager
def curves(tracker: Any, stage_dir: Path, points: Iterable[Point]) -> Iterator[Curves]:
    """Give the trackers what a stage's files hold, and what the block adds, until it ends.

    Args:
        tracker: the key of the configuration.
        stage_dir: the stage's folder, whose lock is held.
        points: what the files hold.
    """
    found = Curves(stage_dir, chosen(tracker), resumes=True)
    found.start([*points], more=True)
    try:
        yield found
    finally:
        found.finish()


def write(tracker: Any, stage_dir: Path, points: Iterable[Point], *, resumes: bool = False) -> None:
    """Give the trackers what the files of a finished stage hold; those that have it are left alone.

    Args:
        tracker: the key of the configuration.
        stage_dir: the stage's folder, whose lock is held.
        points: what the files hold.
        resumes: whether the stage wrote them by ``curves``.
    """
    found = Curves(stage_dir, chosen(tracker), resumes)
    found.start([*points], more=False)
    found.finish()


def _settle_rank() -> None:
    """Make the state that accelerate's trackers ask for the rank, where a training has not made it.

    Outside of training the first process of a launch works alone: it would wait for the others for ever.
    """
    from accelerate import PartialState

    launched = os.environ.pop("LOCAL_RANK", None)
    try:
        PartialState()
    finally:
        if launched is not None:
            os.environ["LOCAL_RANK"] = launched


def _name(stage_dir: Path) -> str:
    return f"{stage_dir.parent.name}/{stage_dir.name}"


def _digest(points: Iterable[Point]) -> Any:
    found = hashlib.sha256()
    for point in points:
        found.update(_line(point))
    return found


def _line(point: Point) -> bytes:
    return json.dumps(point, sort_keys=True, default=_picture).encode() + b"\n"


def _picture(path: Path) -> str:
    """What stands for a picture in the digest of points: its bytes, wherever the run lies."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

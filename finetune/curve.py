"""The held-out losses of every evaluation while training, and ``heldout.npz``, which stores them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finetune import npz
from finetune.heldout import HeldoutItems, relative
from finetune.intervals import group_means
from finetune.rules import Evidence


@dataclass
class HeldoutCurve:
    """Losses of held-out and of training pictures, evaluation by evaluation, the base model first.

    Attributes:
        val_keys, train_probe_keys: the pictures' keys. val_groups, train_probe_groups: their duplicate groups.
        steps, samples_seen: [K] where each evaluation was made.
        val, train_probe: [K] arrays of float32 [N, bins, draws].
        precisions: [K] what each was computed in, one of ``finetune.config.optim.PRECISIONS``, with the kind of
            frozen weights that are not fp32; "" where that is not known, as earlier versions noted none.
        start: the two arrays [N, bins, draws] of what training started with, as precise as the first; None where
            that was the base.
    """

    val_keys: list[str]
    train_probe_keys: list[str]
    val_groups: list[str]
    train_probe_groups: list[str]
    steps: list[int] = field(default_factory=list)
    samples_seen: list[int] = field(default_factory=list)
    val: list[np.ndarray] = field(default_factory=list)
    train_probe: list[np.ndarray] = field(default_factory=list)
    precisions: list[str] = field(default_factory=list)
    start: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, val: HeldoutItems, train_probe: HeldoutItems) -> HeldoutCurve:
        """An empty curve over these items."""
        return cls(
            list(val.keys), list(train_probe.keys), list(val.groups), list(train_probe.groups)
        )

    def add(
        self,
        step: int,
        samples_seen: int,
        val: np.ndarray,
        train_probe: np.ndarray,
        precision: str = "",
    ) -> None:
        """Append one evaluation."""
        self.steps.append(step)
        self.samples_seen.append(samples_seen)
        self.val.append(val)
        self.train_probe.append(train_probe)
        self.precisions.append(precision)

    def heldout(self, at: int = -1) -> float:
        """Mean relative held-out loss of evaluation ``at``; the base's is 1."""
        return _mean(self.val[at], self.val[0], self.val_groups)

    def train_probe_loss(self, at: int = -1) -> float:
        """The same for the training pictures."""
        return _mean(self.train_probe[at], self.train_probe[0], self.train_probe_groups)

    def start_heldout(self) -> float | None:
        """Mean relative held-out loss of what training started with; None where that was the base."""
        return _mean(self.start[0], self.val[0], self.val_groups) if self.start else None

    def objective(self, at: int = -1) -> float:
        """Plain mean of the held-out losses, in the loss's own unit."""
        return float(self.val[at].mean(dtype=np.float64))

    def evidence(self, at: int) -> Evidence:
        """The scores of the evaluations up to ``at``, at least 1, for the rule of overfitting."""
        val, train_probe = (
            np.stack([relative(losses, split[0], groups) for losses in split[: at + 1]])
            for split, groups in (
                (self.val, self.val_groups),
                (self.train_probe, self.train_probe_groups),
            )
        )
        groups = self.val_groups, self.train_probe_groups
        return Evidence.of(val, train_probe, *groups, start=self._start_scores())

    def _start_scores(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.start is None:
            return None
        return (
            relative(self.start[0], self.val[0], self.val_groups),
            relative(self.start[1], self.train_probe[0], self.train_probe_groups),
        )

    def save(self, path: Path) -> None:
        """Write ``heldout.npz``; the same curve gives the same bytes."""
        arrays = {
            "val_keys": np.array(self.val_keys),
            "probe_keys": np.array(self.train_probe_keys),  # older name, which stored runs have
            "val_groups": np.array(self.val_groups),
            "probe_groups": np.array(self.train_probe_groups),
            "steps": np.array(self.steps),
            "samples_seen": np.array(self.samples_seen),
            "val": np.stack(self.val),
            "probe": np.stack(self.train_probe),
            "precisions": np.array(self.precisions),
        }
        if self.start:
            arrays |= {"start_val": self.start[0], "start_probe": self.start[1]}
        npz.write(path, arrays)

    @classmethod
    def load(cls, path: Path, up_to: int | None = None) -> HeldoutCurve:
        """Read a curve, without the evaluations after step ``up_to``.

        Raises:
            FileNotFoundError: there is none.
            DamagedArrays: the file is damaged.
        """
        stored = npz.read(path)
        stored.setdefault("val_groups", stored["val_keys"])  # earlier versions noted no groups
        stored.setdefault("probe_groups", stored["probe_keys"])
        stored.setdefault("precisions", np.array([""] * len(stored["steps"])))
        count = sum(up_to is None or step <= up_to for step in stored["steps"].tolist())
        return cls(
            stored["val_keys"].tolist(),
            stored["probe_keys"].tolist(),
            stored["val_groups"].tolist(),
            stored["probe_groups"].tolist(),
            stored["steps"].tolist()[:count],
            stored["samples_seen"].tolist()[:count],
            list(stored["val"][:count]),
            list(stored["probe"][:count]),
            stored["precisions"].tolist()[:count],
            (stored["start_val"], stored["start_probe"]) if "start_val" in stored else None,
        )


def _mean(losses: np.ndarray, base_losses: np.ndarray, groups: list[str]) -> float:
    """Over groups, of relative losses."""
    return float(group_means(relative(losses, base_losses, groups), groups).mean())

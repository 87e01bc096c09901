"""When to stop: the held-out curve so far, and what its paired differences say."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.run.files import atomic_write
from finetune.heldout import HeldoutItems, relative

Z_95 = 1.96  # two-sided 95 % of the normal law; item differences are averaged over tens of items


@dataclass
class HeldoutCurve:
    """Losses of the held-out pictures and of the probe, evaluation by evaluation, the base first.

    Attributes:
        val_keys, probe_keys: the items' keys.
        steps, samples_seen: [K] where each evaluation was made.
        val, probe: [K] arrays of float32 [N, bins, draws].
    """

    val_keys: list[str]
    probe_keys: list[str]
    steps: list[int] = field(default_factory=list)
    samples_seen: list[int] = field(default_factory=list)
    val: list[np.ndarray] = field(default_factory=list)
    probe: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, val: HeldoutItems, probe: HeldoutItems) -> HeldoutCurve:
        """An empty curve over these items."""
        return cls(list(val.keys), list(probe.keys))

    def add(self, step: int, samples_seen: int, val: np.ndarray, probe: np.ndarray) -> None:
        """Append one evaluation."""
        self.steps.append(step)
        self.samples_seen.append(samples_seen)
        self.val.append(val)
        self.probe.append(probe)

    def heldout(self, at: int = -1) -> float:
        """Mean relative held-out loss of evaluation ``at``; the base's is 1."""
        return float(relative(self.val[at], self.val[0]).mean())

    def probe_loss(self, at: int = -1) -> float:
        """The same for the training pictures."""
        return float(relative(self.probe[at], self.probe[0]).mean())

    def objective(self, at: int = -1) -> float:
        """Plain mean of the held-out losses, in the loss's own unit."""
        return float(self.val[at].mean(dtype=np.float64))

    def save(self, path: Path) -> None:
        """Write ``heldout.npz``; the same curve gives the same bytes."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            val_keys=np.array(self.val_keys),
            probe_keys=np.array(self.probe_keys),
            steps=np.array(self.steps),
            samples_seen=np.array(self.samples_seen),
            val=np.stack(self.val),
            probe=np.stack(self.probe),
        )
        with atomic_write(path) as stream:
            stream.write(buffer.getvalue())

    @classmethod
    def load(cls, path: Path, up_to: int | None = None) -> HeldoutCurve:
        """Read a curve, without the evaluations after step ``up_to``."""
        with np.load(path) as stored:
            count = sum(up_to is None or step <= up_to for step in stored["steps"].tolist())
            return cls(
                stored["val_keys"].tolist(),
                stored["probe_keys"].tolist(),
                stored["steps"].tolist()[:count],
                stored["samples_seen"].tolist()[:count],
                list(stored["val"][:count]),
                list(stored["probe"][:count]),
            )


def paired_interval(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval, normal approximation, of per-item differences [N]."""
    mean = float(difference.mean())
    half = Z_95 * float(difference.std(ddof=1)) / len(difference) ** 0.5
    return mean, mean - half, mean + half


def symptom(curve: HeldoutCurve, at: int) -> str | None:
    """What is wrong at evaluation ``at``, judged by what came before it: a word, or None.

    ``overfitting``: held-out pictures are worse than at their best, by more than noise and by more
    than a twentieth of what was gained, while training pictures got better since. ``diverged``: both
    are worse than the base model's. A widening gap alone is neither: it widens in healthy runs too.
    """
    val = [relative(losses, curve.val[0]) for losses in curve.val[: at + 1]]
    probe = [relative(losses, curve.probe[0]) for losses in curve.probe[: at + 1]]
    if len(val[0]) < 2 or at == 0:
        return None
    if paired_interval(val[at] - val[0])[1] > 0 and paired_interval(probe[at] - probe[0])[1] > 0:
        return "diverged"
    best = int(np.argmin([scores.mean() for scores in val]))
    margin = max(0.05 * (1 - val[best].mean()), 0.002)
    worse, worse_low, _ = paired_interval(val[at] - val[best])
    _, _, probe_high = paired_interval(probe[at] - probe[best])
    return "overfitting" if worse_low > 0 and worse > margin and probe_high < 0 else None


def reason_to_stop(curve: HeldoutCurve, patience: int | None) -> str | None:
    """The symptom that the last ``patience`` evaluations agree on, or None.

    One look in twenty is wrong by chance, and a run looks often; hence more than one in a row.
    """
    if patience is None or len(curve.steps) <= patience:
        return None
    symptoms = {symptom(curve, len(curve.steps) - 1 - back) for back in range(patience)}
    return symptoms.pop() if len(symptoms) == 1 else None

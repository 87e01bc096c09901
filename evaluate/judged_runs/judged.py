"""A run that was judged, opened from the files of its evaluation alone: no model, no picture.

``losses.npz`` has the losses of every picture and, as texts under ``origin/``, what they depend on beside
weights, grid and pictures:

``base``
    the whole base model. Losses of two bases can be compared.
``latents``
    VAE and resolution. ``noise``: the noise levels and what the network predicts. Losses of two of these are
    in different units.
``shards``
    of the curation, as they were trained on and judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.run import checksums, joined
from curate.run.finished import to_mend
from curate.run.folder import TRAINED, Kind, curate_dir_of
from curate.run.manifest import Manifest, digest_now, read_manifest
from curate.run.next_command import COMMANDS, run_arguments
from curate.run.schema import UserError
from evaluate.results import Results, label_of, load
from finetune import npz, trained_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.buckets import Sides
    from finetune.models.interface import LatentDiffusion

JUDGED = Kind("judged", "evaluate", "report.json")
LOSSES = "losses.npz"
ORIGINS = ("base", "latents", "noise", "shards")


@dataclass(frozen=True, slots=True)
class Scores:
    """A metric's value of each picture, as an evaluator stored it.

    Attributes:
        on: which pictures, as ``Metric.on``. instrument: what it was measured with; "" where that is no choice.
        values: by the picture's key.
    """

    on: str
    instrument: str
    values: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """What an evaluation left.

    Attributes:
        run_dir: of the run.
        results: of ``report.json``.
        arrays: of ``losses.npz``, see ``evaluate.measure.grid.LossStore``.
    """

    run_dir: Path
    results: Results
    arrays: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        """Of the run."""
        return self.run_dir.name

    @property
    def kept(self) -> int:
        """Step of the checkpoint to keep; 0 is the base."""
        return self.results.verdict.kept

    @property
    def curate_dir(self) -> Path:
        """Of the curation that it was trained on."""
        return curate_dir_of(self.run_dir)

    @property
    def manifest(self) -> Manifest:
        """Of the curation that it was trained on and judged by, without what was removed since, see ``removed``.

        Raises:
            FileNotFoundError: it is not there any more.
            UserError: there is another one by now.
        """
        found = read_manifest(self.curate_dir)
        if self.removed is None:
            raise UserError(
                f"{self.curate_dir} was curated again after {self.run_dir} was judged, so that nothing says which "
                "pictures it was trained on. Train again with "
                f"{joined.option(self.curate_dir)} under another run.name, and judge that"
            )
        return found

    @property
    def removed(self) -> Sequence[Mapping[str, Any]] | None:
        """Pictures that were removed since, with ``key, sha256, split``; None if there is another curation."""
        shards = self.origin["shards"]
        if digest_now(self.curate_dir, read_manifest(self.curate_dir)) == shards:
            return ()
        gone = trained_on.removed_since(self.run_dir / TRAINED.stage, self.curate_dir, shards)
        return None if gone is None else gone.select(["key", "sha256", "split"]).to_pylist()

    @cached_property
    def origin(self) -> dict[str, str]:
        """What the losses depend on, see the module."""
        return {name: str(self.arrays[f"origin/{name}"]) for name in ORIGINS}

    def setting(self, group: str) -> dict[str, Any]:
        """A group of the evaluation's configuration, such as ``grid``."""
        return self.results.provenance["evaluate"][group]

    @property
    def precision(self) -> str:
        """In which its U-Nets computed; earlier versions knew only ``no``, fp32."""
        return self.results.provenance["evaluate"].get("precision", "no")

    def keys(self, split: str) -> list[str]:
        """Of the measured pictures of ``val``, ``test`` or ``train_probe``; none where it was not measured."""
        return self.arrays.get(f"{split}/keys", np.array([], np.str_)).tolist()

    def losses(self, split: str, step: int) -> np.ndarray | None:
        """[N, bins, draws] float32 of a checkpoint (0: the base) on the pictures of ``keys``, if measured."""
        return self.arrays.get(f"{split}/{step:08d}")

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """What evaluators stored of each picture, by metric, see ``LossStore.put_scores``."""
        names = [name.split("/")[1] for name in self.arrays if name.startswith("scores/")]
        return {name: self._scores(f"scores/{name}") for name in dict.fromkeys(names)}

    def _scores(self, start: str) -> Scores:
        keys, values = (self.arrays[f"{start}/{part}"].tolist() for part in ("keys", "values"))
        on, instrument = (str(self.arrays[f"{start}/{part}"]) for part in ("on", "instrument"))
        return Scores(on, instrument, dict(zip(keys, values, strict=True)))

    def drawn(self, key: str) -> Path | None:
        """The picture that the kept checkpoint drew for a held-out caption, if it did."""
        path = self.run_dir / "evaluate" / "samples" / label_of(self.kept) / f"{key}.png"
        return path if path.is_file() else None


def origin_of(
    model: LatentDiffusion, shards: str, buckets: Sequence[Sides], beside: str = ""
) -> dict[str, str]:
    """What ``Judged.origin`` reads: digests of a model with its aspect buckets and pictures beside pictures, and of the shards."""
    schedule = model.schedule
    noise = hashlib.sha256(schedule.prediction_type.encode())
    for table in (schedule.alphas, schedule.sigmas):
        noise.update(table.cpu().numpy().tobytes())
    made_by = [model.image_fingerprint(), model.resolution, *([buckets] if buckets else [])]
    latents = hashlib.sha256((" ".join(map(str, made_by)) + beside).encode())
    return {
        "base": model.fingerprint(),
        "latents": latents.hexdigest(),
        "noise": noise.hexdigest(),
        "shards": shards,
    }


def find(name: str, root: Path, key: str = "") -> Path:
    """The folder of a judged run, from its name below ``root`` or its path.

    Args:
        name: as typed.
        root: of the runs.
        key: that it was typed for, such as ``gate.against``; "" for an argument.

    Raises:
        UserError: there is no such run, or it was not judged; says what to type.
    """
    tried = [root / name, Path(name).expanduser()]
    for folder in tried:
        if (folder / JUDGED.stage / JUDGED.marker).is_file():
            return folder if folder.name else folder.resolve()
    shown = f"{key}={name}" if key else name
    for folder in tried:
        if any(folder.glob(f"{TRAINED.stage}/{TRAINED.marker}")):
            raise UserError(
                f"{shown} is not judged yet; type first: {COMMANDS['evaluate']} {run_arguments(folder)}"
            )
    names = JUDGED.of(root)
    near = get_close_matches(name, names, n=1)
    instead = f". Did you mean {near[0]}" if near else ""
    raise UserError(f"{shown} is no judged run; {JUDGED.listed(root)}{instead}")


def open_judged(run_dir: Path) -> Judged:
    """Read what an evaluation left.

    Raises:
        UserError: it has not finished, is damaged, or is of another version; says what to type.
    """
    again = to_mend(run_dir, f"type: {COMMANDS['evaluate']} {run_arguments(run_dir)}")
    folder = run_dir / JUDGED.stage
    if checksums.read(folder) is None:
        raise UserError(f"the evaluation in {folder} has not finished; {again}")
    for name in (JUDGED.marker, LOSSES):
        if not checksums.is_intact(folder, name):
            raise UserError(f"{folder / name} is damaged, not what the evaluation wrote; {again}")
    results = load(folder / JUDGED.marker)
    try:
        arrays = npz.read(folder / LOSSES)
    except npz.DamagedArrays as error:
        raise UserError(f"{error}; {again}") from error
    found = Judged(run_dir, results, arrays)
    if any(f"origin/{name}" not in arrays for name in ORIGINS):
        raise UserError(
            f"{folder / LOSSES} does not say what was measured, since an earlier version wrote it; {again}, which "
            "takes the losses from there"
        )
    return found

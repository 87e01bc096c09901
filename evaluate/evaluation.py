"""What all evaluators share: losses, checkpoints and pictures, each computed when first needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curate.decide.config import SMALLEST_JUDGED
from curate.measures.decode import decode
from curate.pack.sample import read_shard
from curate.run import devices
from curate.run.companions import CONTROL
from curate.run.manifest import Manifest, digest_now, intact, read_manifest
from evaluate.judged_runs.against import Against
from evaluate.judged_runs.judged import origin_of
from evaluate.measure import training_gains
from evaluate.measure.caption_losses import CaptionLosses
from evaluate.measure.features import Features, of_timm, of_vae
from evaluate.measure.grid import Grid, LossStore, LossTable, SplitLosses
from evaluate.measure.own_pictures import OwnPictures
from evaluate.measure.parts import Parts, of_curation
from evaluate.measure.reconsider import Gains
from evaluate.measure.retention import Retention
from evaluate.measure_config import MeasureConfig
from evaluate.metrics import copying
from evaluate.metrics.slices import Paired, Slice, judge
from evaluate.results import Metric, Picture, label_of
from finetune import companions, doctor, precision, rules
from finetune.at_once import pictures_at_once
from finetune.checkpoint import Checkpoint, weights_sha256
from finetune.crop import to_square
from finetune.drawing.sampling import Prompt, Sampler
from finetune.heldout import relative
from finetune.intervals import Array, estimate
from finetune.opened_run import load_run
from finetune.rules import Evidence, Row
from finetune.sidecars import read_columns

if TYPE_CHECKING:
    from curate.clip.scorer import ClipScorer


class Evaluation:
    """A run that is being evaluated. Its checkpoints are rows: 0 is the base, the last trained is last.

    Attributes:
        config: the whole configuration.
        run: as training left it.
        folder: where results go.
        against: the run that ``gate.against`` names.
    """

    def __init__(self, config: MeasureConfig, against: Against | None = None) -> None:
        self.config = config
        self.against = against
        self.run = load_run(config.run.folder)
        self.curate_dir = self.run.curate_dir
        self.folder = config.run.folder / "evaluate"
        self.device = torch.device(devices.chosen(config.device))
        precision.refuse(config.precision, self.device)
        self._on_test: dict[int, SplitLosses | None] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """Of the curated data."""
        return read_manifest(self.curate_dir)

    def refuse_other_origin(self) -> None:
        """Data and base model must be those of the training.

        After another curation under the same name, pictures that were trained on may be held out.

        Raises:
            UserError: names which of the two differs, a held-out shard that is damaged, or what makes the losses of
                ``gate.against`` another thing than this run's.
        """
        started = self.run.checkpoints()[-1].state()["identity"]
        shards = {"shards": digest_now(self.curate_dir, self.manifest)}
        doctor.refuse_change(self.run.finetune_dir, started, shards)  # first: it needs no model
        for shard in self.manifest.shards_of("val"):  # now, not when the report shows its pictures
            intact(self.curate_dir, shard)
        weights = {"weights": self.run.model(self.device).fingerprint()}
        doctor.refuse_change(self.run.finetune_dir, started, weights)
        if self.against:
            self.against.refuse_other_units(self.config.run.folder, self.origin)

    @cached_property
    def origin(self) -> dict[str, str]:
        """What all losses depend on, see ``evaluate.judged_runs.judged``."""
        model = self.run.model(self.device)
        buckets = self.run.config.buckets.sides(model.resolution)
        beside = companions.used(self.run.config)
        return origin_of(model, self.manifest.digest(), buckets, beside)

    # Losses

    @cached_property
    def grid(self) -> Grid:
        """Measures losses, and stores them."""
        store = LossStore(self.folder / "losses.npz")
        return Grid(self.run, self.config.grid, store, self.device, self.config.precision)

    @cached_property
    def table(self) -> LossTable:
        """The losses of all rows, on held-out and on training pictures."""
        self.grid.store.put_origin(self.origin)
        return self.grid.table()

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimizer steps of each row; 0 for the base."""
        return self.table.steps

    @cached_property
    def evidence(self) -> Evidence:
        """The same relative to the base, a score for each group of pictures."""
        table = self.table
        return Evidence.of(
            _scores(table.val, table.groups),
            _scores(table.train_probe, table.train_probe_groups),
            table.groups,
            table.train_probe_groups,
            start=table.start
            and (
                relative(table.start[0], table.val[0], table.groups),
                relative(table.start[1], table.train_probe[0], table.train_probe_groups),
            ),
        )

    def on_test(self, row: int) -> SplitLosses | None:
        """Losses of the base and of a row on the split ``test``; None where it has too few groups."""
        stored = self.checkpoint(row)
        if stored is None:
            return None
        if row not in self._on_test:
            self._on_test[row] = self.grid.test(stored)
        found = self._on_test[row]
        return found if found and len(set(found.groups)) >= SMALLEST_JUDGED else None

    def gain(self, row: int, levels: slice = slice(None)) -> Metric:
        """Change of the held-out loss from the base to a row, on pictures that had no part in choosing it.

        Those are the split ``test``, where it has enough groups; else ``val``, which the row was chosen by.

        Args:
            row: of a checkpoint; 0 is the base.
            levels: the noise levels that count, all by default.
        """
        if self.too_few:
            return self.too_few
        test, table = self.on_test(row), self.table
        on = "test" if test else "val"
        losses = test.losses if test else table.val[[0, row]]
        groups = test.groups if test else table.groups
        try:
            base, scores = (relative(each, losses[0], groups, levels) for each in losses)
        except ValueError as error:
            return Metric(reason=str(error))
        return Metric.of(estimate(scores - base, groups), on)

    def caption_losses(self, split: str) -> CaptionLosses:
        """With other captions: of the pictures measured in ``val`` or, of training pictures, ``train``."""
        name, own = (
            ("val", self.table.val) if split == "val" else ("train_probe", self.table.train_probe)
        )
        return CaptionLosses(
            self.grid,
            [self.checkpoint(row) for row in range(len(self.table.steps))],
            name,
            self.run.items(split, own.shape[1], self.device),
            self.run.captions(split, own.shape[1], self.device),
            own,
        )

    @cached_property
    def too_few(self) -> Metric | None:
        """What a metric is where there are fewer pictures than a verdict needs; else None."""
        groups = self.evidence.groups
        if groups >= SMALLEST_JUDGED:
            return None
        reason = f"only {groups} groups of pictures; at least {SMALLEST_JUDGED} needed"
        return Metric(groups=groups, reason=reason)

    def groups_of(self, keys: Sequence[str], split: str = "val") -> list[str]:
        """The duplicate groups of keys in a split."""
        return self.run.groups_of(split, keys)

    def change(self, split: str, row: Row, since: Row = 0) -> Metric:
        """Mean paired change of the score on ``val`` or ``train_probe`` from row ``since`` to ``row``."""
        return self.too_few or Metric.of(self.evidence.change(split, row, since), split)

    @cached_property
    def parts(self) -> Parts:
        """By what the held-out pictures are divided."""
        shards, table = self.manifest.shards_of("val"), self.table
        return of_curation(self.curate_dir, shards, table.keys, table.groups)

    @cached_property
    def heldout_losses(self) -> Paired:
        """Those of the checkpoint to keep and of the base, a relative loss for each held-out picture."""
        table = self.table
        base, kept = (
            relative(table.val[row], table.val[0], table.groups) for row in (0, self.kept)
        )
        return Paired(kept, base, table.groups)

    @cached_property
    def slices(self) -> list[Slice]:
        """The change by slice of the held-out pictures."""
        return judge(self.heldout_losses, self.parts.labels)

    @cached_property
    def caption_gains(self) -> Gains | None:
        """Of training pictures, with the checkpoint to keep; None where they are left out."""
        count = self.config.reconsider.pictures
        return (
            training_gains.measure(self.grid, self.checkpoint(self.kept), count) if count else None
        )

    # Checkpoints

    @cached_property
    def kept(self) -> int:
        """The row that the verdict says to keep, or an earlier one where that copies training pictures."""
        return self._kept_and_vetoes[0]

    @property
    def vetoes(self) -> list[str]:
        """Why checkpoints that the losses alone would have kept are not, in sentences."""
        return self._kept_and_vetoes[1]

    @cached_property
    def _kept_and_vetoes(self) -> tuple[int, list[str]]:
        first, steps = rules.kept(self.evidence), self.table.steps
        kept, reasons = copying.first_without(first, self.own_pictures.vetoed)
        if not reasons:
            return kept, []
        if kept and self.evidence.change("val", kept, 0).value >= 0:  # too early to be of use
            kept = 0
        also = [steps[row] for row in copying.earlier(first)[: len(reasons) - 1]]
        return kept, [reasons[0], copying.kept_instead(steps[kept], also)]

    @cached_property
    def own_pictures(self) -> OwnPictures:
        """What copying is measured on; only what is asked for is drawn."""
        return OwnPictures(self)

    @cached_property
    def exported(self) -> int:
        """The row whose weights the export holds: chosen while training, on a coarser grid."""
        return self.table.steps.index(self.run.exported().step)

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The checkpoint of a row; None for the base."""
        return self.run.checkpoints()[row - 1] if row else None

    # Pictures

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The held-out captions that are drawn."""
        captions = self.run.captions("val", self.config.grid.items, self.device)
        count = max(self.config.samples.rows, self.config.samples.clip_captions)
        controls = self._controls("val", self.config.grid.items)
        triples = list(zip(self.table.keys, captions, controls, strict=True))[:count]
        return [Prompt(key, caption, control=control) for key, caption, control in triples]

    def _controls(self, split: str, count: int) -> Sequence[Tensor | None]:
        """What a ControlNet draws the pictures of the first items of a split from; None for each without one."""
        items = self.run.items(split, count, self.device)
        found = items.conditioning.tensors.get(CONTROL)
        return [None] * len(items) if found is None else list(found)

    @cached_property
    def drawn(self) -> dict[int, list[Path]]:
        """Same-seed pictures by row: base and kept for all prompts, last for those in the report."""
        files = {row: self.draw(row, self.prompts) for row in dict.fromkeys((0, self.kept))}
        if self.evidence.last not in files:
            prompts = self.prompts[: self.config.samples.rows]
            files[self.evidence.last] = self.draw(self.evidence.last, prompts)
        return files

    def draw(
        self, row: int, prompts: Sequence[Prompt], again: int = 0, subfolder: str = ""
    ) -> list[Path]:
        """Pictures of a row's weights for captions; each number ``again`` starts from noise of its own."""
        settings, stored = self.config.samples, self.checkpoint(row)
        model, seed = self.run.model(self.device), settings.seed + again
        folder = self.folder / "samples" / label_of(self.table.steps[row]) / subfolder
        size = settings.batch_size or pictures_at_once(model.resolution)
        return Sampler(
            model, self.config.sampler, seed, size, precision=self.config.precision
        ).draw_missing(
            folder / f"again-{again}" if again else folder,
            prompts,
            weights_sha256(stored),
            lambda: self.run.unet_at(stored, device=self.device),
        )

    def pictures(self) -> tuple[Picture, ...]:
        """The rows of the report's comparison."""
        return tuple(
            Picture(
                prompt.key,
                prompt.caption,
                {
                    label_of(self.table.steps[row]): str(paths[i].relative_to(self.folder))
                    for row, paths in self.drawn.items()
                },
            )
            for i, prompt in enumerate(self.prompts[: self.config.samples.rows])
        )

    @cached_property
    def retention(self) -> Retention | None:
        """The base's own pictures, and how checkpoints do on them; None where they are left out."""
        retention = self.config.retention
        return Retention(self.config, self.grid, self.folder) if retention.items else None

    # What pictures look like to a network

    @cached_property
    def clip(self) -> ClipScorer:
        """The CLIP that pictures are judged with."""
        from curate.clip.load import load_clip

        return load_clip(self.config.clip, self.device)

    @cached_property
    def clip_features(self) -> Features:
        """Unit vectors of pictures in that CLIP's eyes."""
        return Features(self.clip.encode_images)

    @cached_property
    def features(self) -> Features:
        """What distributions are compared by."""
        settings = self.config.distribution
        if settings.features == "vae":
            return of_vae(self.run.model(self.device))
        return of_timm(settings, self.device) if settings.features == "timm" else self.clip_features

    def real_features(self, features: Features, keys: Sequence[str]) -> Array:
        """[N, D] of the held-out pictures of prompts, as training sees them."""
        side = self.run.model(self.device).resolution
        return features.of(keys, lambda key: to_square(self.real_picture(key), side))

    def real_picture(self, key: str) -> Image.Image:
        """The held-out picture that a prompt's caption belongs to."""
        return decode(self._real_files[key])

    def training_pictures(self, keys: Set[str]) -> Iterator[tuple[str, Image.Image]]:
        """Some pictures of the split ``train`` with their keys; only the shards that hold them are read."""
        for shard in self.manifest.shards_of("train"):
            present = read_columns(self.curate_dir, shard, ["key"])["key"].to_pylist()
            if not keys.isdisjoint(present):
                for sample in read_shard(intact(self.curate_dir, shard)):
                    if sample.key in keys:
                        yield sample.key, decode(sample.image)

    @cached_property
    def _real_files(self) -> dict[str, bytes]:
        keys = {prompt.key for prompt in self.prompts}
        return {
            sample.key: sample.image
            for shard in self.manifest.shards_of("val")
            for sample in read_shard(intact(self.curate_dir, shard))
            if sample.key in keys
        }


def _scores(losses: np.ndarray, groups: list[str]) -> Array:
    """Losses [rows, N, bins, draws] as scores [rows, N]; row 0 is the base."""
    return np.stack([relative(row, losses[0], groups) for row in losses])

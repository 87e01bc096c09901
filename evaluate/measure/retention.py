"""What became of that which the base could do: losses on its own pictures, and how far new ones moved.

The base draws a picture for each neutral prompt (see ``evaluate.measure.retention_inputs``); the VAE encodes them
again, and they are measured as held-out pictures are. The pictures are drawn once and stay with the run, in
``evaluate/retention/base``.

No model fits these pictures better than the base, so nearly every change of the weights raises the loss
there: 0 is a model that forgot nothing of them, and what counts is by how much it rose. That holds for all
methods alike, since only the weights of the U-Net differ, and of text encoders that are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from curate.decide.config import SMALLEST_JUDGED
from curate.run.manifest import ShardInfo, read_manifest
from evaluate.measure import retention_inputs
from evaluate.measure.grid import Grid
from evaluate.measure_config import MeasureConfig
from evaluate.metrics.drift import drift
from evaluate.results import (
    NOT_ASKED,
    Metric,
    Picture,
    RetentionPoint,
    RetentionResult,
    label_of,
)
from finetune.at_once import pictures_at_once
from finetune.cache import CACHE, encode_shards, load_split
from finetune.checkpoint import Checkpoint, weights_sha256
from finetune.drawing.latents import encode
from finetune.drawing.sampling import Prompt, Sampler
from finetune.heldout import HeldoutGrid, HeldoutItems, choose, relative
from finetune.intervals import estimate
from finetune.latents import of_one_shape
from finetune.sidecars import duplicate_groups, read_columns

BASE_PICTURES, BASE_DATA = "base_pictures", "base_data"  # names of their losses in losses.npz
DRAWS = 1  # noises for each noise level, which is enough where pictures differ more than noises
SHOWN = 8  # neutral prompts in the report


class Retention:
    """The base's own pictures, and how each checkpoint does on them; computed when first needed.

    Attributes:
        prompts: neutral ones, each with the key of its noise.
        rows: None for the base, which is row 0, and the checkpoints.
        grid: what losses are measured on.
    """

    def __init__(self, config: MeasureConfig, grid: Grid, folder: Path) -> None:
        """Prepare; nothing is drawn or measured yet.

        Args:
            config: of the evaluation.
            grid: of held-out pictures; what is measured here goes into its store.
            folder: of the evaluation.
        """
        self._config, self._folder = config, folder
        self._run, self._model, self._device = grid.run, grid.model, grid.device
        self.grid = grid.at(HeldoutGrid(config.grid.bins, DRAWS, config.grid.seed))
        samples = config.samples
        size = samples.batch_size or pictures_at_once(self._model.resolution)
        self._sampler = Sampler(
            self._model, config.sampler, samples.seed, size, precision=config.precision
        )
        captions = retention_inputs.neutral_prompts(config.retention)
        self.prompts = [Prompt(key_of(caption), caption) for caption in captions]
        self.rows: list[Checkpoint | None] = [None, *grid.run.checkpoints()]

    # Pictures

    def drawn(self, row: int) -> list[Path]:
        """A picture of each prompt by one row; the noise is the prompt's own, the same for all rows."""
        stored = self.rows[row]
        return self._sampler.draw_missing(
            self._folder / "retention" / label_of(_step(stored)),
            self.prompts,
            weights_sha256(stored),
            lambda: self._run.unet_at(stored, device=self._device),
        )

    @cached_property
    def items(self) -> HeldoutItems:
        """The base's pictures as items of a loss grid, each conditioned on its prompt and a group of its own."""
        keys = [prompt.key for prompt in self.prompts]
        captions = [prompt.caption for prompt in self.prompts]
        return HeldoutItems(
            keys=keys,
            latents=encode(self._model, self.drawn(0)),
            conditioning=self._model.encode_captions(captions).to("cpu"),
            groups=keys,
        )

    def drift(self, row: int) -> Metric:
        """How far a row's pictures are from the base's, same noise; see :func:`evaluate.metrics.drift.drift`."""
        if few := too_few(self.items):
            return few
        base = of_one_shape(self.items.latents).numpy()
        values = drift(base, encode(self._model, self.drawn(row)).numpy())
        if np.isnan(values).any():
            return Metric(reason="the base draws the same picture for all prompts")
        return Metric.of(estimate(values, self.items.groups), "neutral prompts")

    # Losses

    def change(self, row: int) -> Metric:
        """Of the loss on the base's pictures from the base to a row, a fraction."""
        return _change(self.losses[[0, row]], self.items, "base pictures")

    @cached_property
    def losses(self) -> np.ndarray:
        """Losses [K+1, N, B, R] of all rows on the base's pictures."""
        return self._losses(BASE_PICTURES, self.items, self.rows)

    def _losses(
        self, name: str, items: HeldoutItems, rows: Sequence[Checkpoint | None]
    ) -> np.ndarray:
        self.grid.store.put_keys(name, items.keys)
        return self.grid.measure(rows, {name: items})[name]

    def result(self, kept: int) -> RetentionResult:
        """What the report draws, for the row that is kept."""
        drawn = {label_of(_step(self.rows[row])): self.drawn(row) for row in sorted({0, kept})}
        files = [
            {label: str(paths[i].relative_to(self._folder)) for label, paths in drawn.items()}
            for i in range(min(SHOWN, len(self.prompts)))
        ]
        return RetentionResult(
            points=tuple(
                RetentionPoint(
                    _step(stored), stored.samples_seen if stored else 0, self.change(row)
                )
                for row, stored in enumerate(self.rows)
            ),
            pictures=tuple(
                Picture(prompt.key, prompt.caption, named)
                for prompt, named in zip(self.prompts, files, strict=False)
            ),
        )

    # The base's own data

    def change_on_data(self, row: int) -> Metric:
        """As :meth:`change`, on pictures of ``retention.run``."""
        name = self._config.retention.run
        if name is None:
            return Metric(
                reason=f"{NOT_ASKED}, retention.run names no run with the base's own data"
            )
        items = self._base_data
        if items is None:
            return Metric(reason=f"all pictures of retention.run={name} were trained on")
        rows = [self.rows[number] for number in sorted({0, row})]
        losses = self._losses(BASE_DATA, items, rows)
        return _change(losses[[0, -1]], items, f"pictures of {name}")

    @cached_property
    def _base_data(self) -> HeldoutItems | None:
        """At most ``retention.items`` pictures of ``retention.run`` that were not trained on; None if all were."""
        curate_dir = retention_inputs.curation_of_base(self._config)
        assert curate_dir is not None
        manifest = read_manifest(curate_dir)
        shards = manifest.shards_of(retention_inputs.side_of(manifest))
        cache_dir = self._run.run_dir.parent / CACHE
        encode_shards(self._model, curate_dir, shards, cache_dir)
        split = load_split(self._model, shards, cache_dir)
        trained = self._trained_keys(curate_dir, shards)
        places = choose(split, len(split)).tolist()
        usable = [place for place in places if split.keys[place] not in trained]
        if not usable:
            return None
        chosen = torch.tensor(usable[: self._config.retention.items], dtype=torch.int64)
        keys = [split.keys[place] for place in chosen.tolist()]
        return HeldoutItems(
            keys=keys,
            latents=split.latents_of(chosen),
            conditioning=split.conditioning_of(chosen),
            groups=duplicate_groups(curate_dir, shards, keys),
        )

    def _trained_keys(self, curate_dir: Path, shards: Sequence[ShardInfo]) -> set[str]:
        """Keys of those samples of some shards whose pictures this run was trained on, by the hash of their bytes."""
        ours, pictures = self._run.curate_dir, {}
        for shard in shards:
            table = read_columns(curate_dir, shard, ("key", "sha256"))
            pictures |= zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True)
        wanted, trained = set(pictures.values()), set()
        for shard in read_manifest(ours).shards_of("train"):
            trained |= wanted & set(read_columns(ours, shard, ("sha256",))["sha256"].to_pylist())
        return {key for key, sha256 in pictures.items() if sha256 in trained}


def key_of(caption: str) -> str:
    """The key of a neutral prompt: its noise and its file stay the same wherever it is in the list."""
    return "neutral-" + hashlib.blake2b(caption.encode(), digest_size=8).hexdigest()


def _step(stored: Checkpoint | None) -> int:
    return stored.step if stored else 0


def _change(losses: np.ndarray, items: HeldoutItems, on: str) -> Metric:
    """From losses [2, N, B, R] of the base and of a row, each picture in units of the base's mean loss."""
    if few := too_few(items):
        return few
    base, scores = (relative(each, losses[0], items.groups) for each in losses)
    return Metric.of(estimate(scores - base, items.groups), on)


def too_few(items: HeldoutItems) -> Metric | None:
    """What a metric is on items of fewer groups than an interval needs; else None."""
    groups = len(set(items.groups))
    if groups >= SMALLEST_JUDGED:
        return None
    reason = f"only {groups} groups of pictures; at least {SMALLEST_JUDGED} needed"
    return Metric(n=len(items), groups=groups, reason=reason)

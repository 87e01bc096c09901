"""The typed schema of ``conf/curate.yaml``, put together from those of the stages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig, HeadConfig
from curate.decide.config import SplitConfig
from curate.fetch.config import FetchConfig
from curate.filters.config import FiltersConfig
from curate.filters.consent import DROP
from curate.pack.config import ShardsConfig
from curate.readers.config import DatasetConfig
from curate.run import tracking
from curate.run.config import RunConfig, check_name
from curate.run.engine.config import EngineConfig
from curate.run.schema import UserError, check, entries, register

ANNOTATE, FINISH = "annotate", "finish"  # of ``stage``

_OTHER_PEOPLES = ("table",)  # readers of pictures whose authors nobody asked


@dataclass
class CurateConfig:
    """All of ``python -m curate``.

    Attributes:
        stage: only a part of the work: ``annotate`` measures, ``finish`` does the rest once all is measured.
        shard: of the measuring, ``i/n``: the tasks i, i + n, ... for this process, in the run's one folder.
        part: ``i/n``, the i-th of n parts of the data set by hash of the keys, each curated alone in a run of its own;
            the same as ``dataset.shard``, its former name.
        tracker: where the funnel's numbers go, see ``curate.run.tracking``.
    """

    run: RunConfig = field(default_factory=RunConfig)
    dataset: DatasetConfig = MISSING
    fetch: FetchConfig = field(default_factory=FetchConfig)
    clip: ClipConfig = MISSING
    heads: dict[str, Any] = field(default_factory=dict, metadata=entries(HeadConfig))
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    annotate: AnnotateConfig = field(default_factory=AnnotateConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    dry_run: int | None = None  # images to try; prints a forecast for the whole data set
    stage: str | None = None
    shard: str | None = None
    part: str | None = None
    tracker: Any = tracking.AUTO

    def __post_init__(self) -> None:
        self.heads = {
            name: values if isinstance(values, HeadConfig) else HeadConfig.of(name, values)
            for name, values in self.heads.items()
            if values is not None
        }
        check(self.dry_run is None or self.dry_run > 0, "dry_run", self.dry_run, "null or > 0")
        self._check_stage()
        self._settle_part()
        check_name("run.name", self.run.name or "")
        tracking.check_names(self.tracker)
        consent = self.filters.consent
        if consent.reserved is None and getattr(self.dataset, "reader", None) in _OTHER_PEOPLES:
            consent.reserved = DROP
        consent.refuse_idle()

    @property
    def scoring_clip(self) -> ClipConfig:
        """The CLIP as those load it who score: actors of Ray have a GPU where they are given one, whatever is here."""
        if self.engine.name != "ray" or self.clip.device != "auto":
            return self.clip
        return replace(self.clip, device="cuda" if self.engine.gpus_per_worker else "cpu")

    def _check_stage(self) -> None:
        accepted = ", ".join(("null", ANNOTATE, FINISH))
        check(self.stage in (None, ANNOTATE, FINISH), "stage", self.stage, accepted)
        self.shard = _fraction("shard", self.shard)
        if self.shard is not None and self.stage == FINISH:
            raise UserError(
                f"shard={self.shard} is a share of the measuring, and stage={FINISH} goes on from all of them; leave "
                f"shard={self.shard} out"
            )
        if self.shard is not None and self.stage != ANNOTATE:
            raise UserError(
                f"shard={self.shard} is a share of the measuring; type stage=annotate as well. For a part of the data set "
                f"that is curated alone, type part={self.shard}"
            )
        if self.dry_run is not None and self.stage is not None:
            raise UserError(
                f"dry_run={self.dry_run} tries all stages; leave stage={self.stage} out"
            )

    def _settle_part(self) -> None:
        """Give the part to the data set, which chooses its images; a reader knows nothing of the rest."""
        self.part = _fraction("part", self.part)
        given = getattr(self.dataset, "shard", None)
        if self.part is not None and given not in (None, self.part):
            raise UserError(
                f"part={self.part} and dataset.shard={given} are two names of one setting; leave dataset.shard out"
            )
        if self.part is not None:
            self.dataset.shard = self.part
        self.part = self.part or given


def _fraction(key: str, value: str | None) -> str | None:
    """``i/n`` without leading zeros."""
    found = re.fullmatch(r"(\d+)/(\d+)", value or "0/1")
    sound = found is not None and int(found[1]) < int(found[2])
    check(sound, key, value, "null or i/n with 0 <= i < n, such as 0/4")
    return f"{int(found[1])}/{int(found[2])}" if value and found else None


register(CurateConfig, "curate")

"""The typed schema of ``conf/curate.yaml``, put together from those of the stages."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from curate.run.schema import check, entries, register

_OTHER_PEOPLES = ("table",)  # readers of pictures whose authors nobody asked


@dataclass
class CurateConfig:
    """All of ``python -m curate``.

    Attributes:
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
    tracker: Any = tracking.AUTO

    def __post_init__(self) -> None:
        self.heads = {
            name: values if isinstance(values, HeadConfig) else HeadConfig.of(name, values)
            for name, values in self.heads.items()
            if values is not None
        }
        check(self.dry_run is None or self.dry_run > 0, "dry_run", self.dry_run, "null or > 0")
        check_name("run.name", self.run.name or "")
        tracking.check_names(self.tracker)
        consent = self.filters.consent
        if consent.reserved is None and getattr(self.dataset, "reader", None) in _OTHER_PEOPLES:
            consent.reserved = DROP
        consent.refuse_idle()


register(CurateConfig, "curate")

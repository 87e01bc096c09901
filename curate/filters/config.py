"""The typed schema of the group ``filters/``; each part is defined in the module of its rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curate.filters.caption import CaptionFilterConfig
from curate.filters.captions import CaptionsConfig
from curate.filters.columns import ColumnConfig
from curate.filters.consent import ConsentConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.language import LanguageFilterConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.run.schema import entries, register


@dataclass
class FiltersConfig:
    """The settings of all filters, in the order in which they are applied.

    Attributes:
        columns: name of a column => `ColumnConfig`, or a mapping of its values; null for
            no rule.
    """

    image: ImageFilterConfig = field(default_factory=ImageFilterConfig)
    caption: CaptionFilterConfig = field(default_factory=CaptionFilterConfig)
    language: LanguageFilterConfig = field(default_factory=LanguageFilterConfig)
    consent: ConsentConfig = field(default_factory=ConsentConfig)
    columns: dict[str, Any] = field(default_factory=dict, metadata=entries(ColumnConfig))
    clip_similarity: ClipSimilarityConfig = field(default_factory=ClipSimilarityConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)

    def __post_init__(self) -> None:
        self.columns = {
            name: values if isinstance(values, ColumnConfig) else ColumnConfig.of(name, values)
            for name, values in self.columns.items()
            if values is not None
        }


register(FiltersConfig, "filters", "filters")

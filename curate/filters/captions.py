"""Rules on images with several captions: how many must pass, and whether all or only the best stay."""

from __future__ import annotations

from dataclasses import dataclass

from curate.filters.rule import Reason
from curate.run.schema import check


@dataclass
class CaptionsConfig:
    """Which captions of an image to keep.

    Attributes:
        keep: "all" captions that pass the other rules, or only the "best", the most similar one.
        at_least: drop an image if fewer of its captions pass the other rules.
    """

    keep: str = "all"
    at_least: int = 1

    def __post_init__(self) -> None:
        check(self.keep in ("all", "best"), "filters.captions.keep", self.keep, "all, best")
        check(self.at_least >= 1, "filters.captions.at_least", self.at_least, ">= 1")


def too_few(config: CaptionsConfig) -> list[Reason]:
    """The rule on how many captions of an image must pass the other rules, if it is switched on."""
    if config.at_least <= 1:
        return []
    return [Reason("too_few_captions", f"too_few_captions: fewer than {config.at_least} passed")]


def not_best(config: CaptionsConfig) -> list[Reason]:
    """The rule on all captions but the most similar one, of ties the first, if it is switched on."""
    if config.keep != "best":
        return []
    return [Reason("not_best_caption", "not_best_caption: another one is more similar")]

"""Rules on what a picture itself says of its use, and on whether a model drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.filters.rule import Rule
from curate.measures import consent, credentials
from curate.run.schema import UserError, check

if TYPE_CHECKING:
    import pandas as pd

DROP = "drop"

_CHOICES = (None, "keep", DROP)
# IPTC's terms for what a model drew as a whole or in part (cv.iptc.org/newscodes/digitalsourcetype).
_DRAWN = (
    "trainedalgorithmicmedia",
    "compositewithtrainedalgorithmicmedia",
)


@dataclass
class ConsentConfig:
    """What becomes of pictures whose metadata speak of training, or of a model as their author.

    Attributes:
        reserved: keep or drop pictures that may not be used for training; null is ``drop`` for tables of
            addresses, whose pictures are other people's, and ``keep`` for all other data sets.
        ai_generated: keep or drop pictures that a model drew, as a whole or in part; null is ``keep``.
        c2pa: whether Content Credentials decide as well as XMP, with the extra ``consent``.
    """

    reserved: str | None = None
    ai_generated: str | None = None
    c2pa: bool = False

    def __post_init__(self) -> None:
        for name in ("reserved", "ai_generated"):
            value = getattr(self, name)
            check(value in _CHOICES, f"filters.consent.{name}", value, "null, keep, drop")

    @property
    def columns(self) -> tuple[str, ...]:
        """The measured columns that the rules read."""
        found = []
        if self.reserved == DROP:
            found += [consent.DATA_MINING, *([credentials.TRAINING] if self.c2pa else [])]
        if self.ai_generated == DROP:
            found += [consent.SOURCE, *([credentials.SOURCE] if self.c2pa else [])]
        return tuple(found)

    def refuse_idle(self) -> None:
        """Refuse ``c2pa`` where neither rule is on, which would do nothing.

        Raises:
            UserError: says what to type.
        """
        if self.c2pa and not self.columns:
            raise UserError(
                "filters.consent.c2pa=true says by what the rules decide, and neither is on; type "
                "filters.consent.reserved=drop or filters.consent.ai_generated=drop as well"
            )


def rules(config: ConsentConfig) -> list[Rule]:
    """The rules that the configuration switches on; what says nothing stays."""
    found = []
    if config.reserved == DROP:
        found.append(
            Rule(
                "reserved",
                f"reserved: {consent.DATA_MINING} prohibits training",
                lambda pairs: _texts(pairs, consent.DATA_MINING).map(consent.is_prohibited),
            )
        )
        if config.c2pa:
            reason = f"reserved: {credentials.TRAINING} does not allow training"
            found.append(Rule("reserved", reason, _not_allowed))
    if config.ai_generated == DROP:
        found.append(_drawn(consent.SOURCE))
        if config.c2pa:
            found.append(_drawn(credentials.SOURCE))
    return found


def _not_allowed(pairs: pd.DataFrame) -> pd.Series:
    return _texts(pairs, credentials.TRAINING).isin(["notAllowed", "constrained"])


def _drawn(column: str) -> Rule:
    def drops(pairs: pd.DataFrame) -> pd.Series:
        return _texts(pairs, column).str.lower().isin(_DRAWN)

    return Rule("ai_generated", f"ai_generated: {column} names a model", drops)


def _texts(pairs: pd.DataFrame, column: str) -> pd.Series:
    """The column as text, "" where nothing is said."""
    found = pairs[column]
    return found.astype("object").where(found.notna(), "").astype("str")

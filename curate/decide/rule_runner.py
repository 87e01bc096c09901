"""Apply the rules in order, and record for each dropped pair the first rule that dropped it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curate.filters.rule import Rule
from curate.run.ledger import DROPPED, KEPT, UNREADABLE

DUPLICATE = Rule("duplicate", "duplicate", lambda pairs: pairs["duplicate_of"] != "")

# No rule looks at these, and copying a million strings for each rule takes longer than the rules.
_NOT_JUDGED = ["source", "location", "version", "format", "sha256", "error", "clip_model"]


class RuleRunner:
    """The pairs that no rule has dropped yet, and the verdicts on the others.

    Attributes:
        left: the readable pairs that every rule so far has kept, with the columns that rules look at.
        steps: (rule, pairs it dropped) in the order of application; "unreadable" first.
        cuts: by rule, the lowest value that it kept, where the rule says so.
    """

    def __init__(self, pairs: pd.DataFrame) -> None:
        self._pairs = pairs
        self._verdicts = [("", "")]  # (rule, reason); the first is that of kept pairs
        self._verdict = np.zeros(len(pairs), np.int16)  # index into _verdicts
        self._keeper = pd.Series("", index=pairs.index, dtype="str")
        self._unreadable = (pairs["error"] != "").to_numpy()
        for error in pairs.loc[self._unreadable, "error"].unique():
            reason = f"{UNREADABLE}: {error}"
            self._note(UNREADABLE, reason, (pairs["error"] == error).to_numpy())
        self.steps = [(UNREADABLE, int(self._unreadable.sum()))]
        self.cuts: dict[str, float] = {}
        judged = pairs.drop(columns=_NOT_JUDGED)
        self.left = judged[~self._unreadable] if self._unreadable.any() else judged

    def apply(self, rule: Rule) -> None:
        """Drop the pairs that ``rule`` marks."""
        drops = rule.drops(self.left).to_numpy(bool)
        self._note(rule.name, rule.reason, self.left.index[drops])
        self.steps.append((rule.name, int(drops.sum())))
        if drops.any():
            self.left = self.left[~drops]
        if (cut := rule.cut(self.left)) is not None:
            self.cuts[rule.name] = cut

    def drop_copies(self, keeper: pd.Series) -> None:
        """Drop the pairs that have a keeper: the key of the image that is kept instead, else ""."""
        copies = keeper[keeper != ""]
        self._keeper[copies.index] = copies
        self.left = self.left.assign(duplicate_of=keeper)
        self.apply(DUPLICATE)

    def ledger(self) -> pd.DataFrame:
        """All pairs with ``kept, rule, reason, status, duplicate_of``."""
        index, dropped = self._pairs.index, self._verdict != 0
        rules, reasons = (
            pd.Series(np.array(words, object)[self._verdict], index, "str")
            for words in zip(*self._verdicts, strict=True)
        )
        status = np.where(self._unreadable, UNREADABLE, np.where(dropped, DROPPED, KEPT))
        return self._pairs.assign(
            kept=~dropped,
            rule=rules,
            reason=reasons,
            status=pd.Series(status, index=index, dtype="str"),
            duplicate_of=self._keeper,
        )

    def _note(self, rule: str, reason: str, rows: np.ndarray | pd.Index) -> None:
        if (rule, reason) not in self._verdicts:
            self._verdicts.append((rule, reason))
        self._verdict[rows] = self._verdicts.index((rule, reason))

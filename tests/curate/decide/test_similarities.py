"""Similarities by their values give what all of them give, to the last digit."""

import numpy as np
import pandas as pd
import pytest

from curate.decide.shuffled_captions import Null
from curate.decide.similarities import Similarities
from tests.curate.small_ledgers import counted, table_of


@pytest.mark.parametrize(("pairs", "digits"), [(1, 6), (2, 6), (5, 1), (997, 2), (5_000, 6)])
def test_counts_quantiles_and_separation_are_those_of_all_pairs(pairs, digits):
    rng = np.random.default_rng(pairs)
    own = rng.normal(0.3, 0.1, pairs).round(digits).astype(np.float32)
    null = Null(np.sort(rng.normal(0.2, 0.1, 999).round(digits)).astype(np.float32))
    found = counted(own)
    assert found.pairs == pairs
    for cut in (0.3, np.float32(0.3), np.quantile(null.similarities, [0.5])[0]):
        assert found.count(found.values < cut) == (own < cut).sum()
    shares = [0.0, 0.01, 0.3, 0.5, 0.77, 0.99, 1.0]
    assert found.quantiles(shares) == np.quantile(own, shares).tolist()
    alone = null.separation(own)
    assert null.separation(found.values, found.times) == alone
    below, up_to = (np.searchsorted(null.similarities, own, side) for side in ("left", "right"))
    assert alone == (below + up_to).mean() / 2 / 999


def test_they_are_read_from_a_ledger_without_the_missing_ones():
    own = np.array([0.3, np.nan, 0.1, 0.3, np.nan, -0.2], np.float32)
    ledger = table_of(pd.DataFrame({"clip_similarity": own, "kept": [True] * 5 + [False]}))
    found = Similarities.of(ledger)
    assert found.values.tolist() == np.float32([-0.2, 0.1, 0.3]).tolist()
    assert found.times.tolist() == [1, 1, 2]
    assert Similarities.of(ledger, "kept").values.tolist() == np.float32([0.1, 0.3]).tolist()
    assert Similarities.of(ledger, "NOT kept AND clip_similarity > 0").pairs == 0

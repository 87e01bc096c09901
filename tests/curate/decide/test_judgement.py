"""The rules that compare pairs give in SQL what they give in pandas, whatever the ties and the threads."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from curate.decide.narrow import rules_in_order
from curate.filters.caption import CaptionFilterConfig
from curate.filters.captions import CaptionsConfig
from curate.filters.config import FiltersConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.run.removals import Removals
from tests.curate.decide.judging import database, in_order, judgement_of
from tests.curate.decide.naive_rules import judged


def pairs(rng, images):
    """Up to four captions an image, of a dozen texts; similarities of one digit, so that many tie."""
    rows = []
    for number in rng.permutation(images):
        error = "truncated" if rng.random() < 0.05 else ""
        wrong = "mask cannot be read" if rng.random() < 0.05 else None
        for index in range(rng.integers(1, 5)):
            lacks = bool(error) or rng.random() < 0.1
            rows.append(
                {
                    "key": f"k{number:03d}",
                    "caption_index": index,
                    "caption": f"caption {rng.integers(12)}" if rng.random() < 0.9 else "",
                    "clip_similarity": np.nan if lacks else rng.integers(1, 5) / 10,
                    "width": int(10 + number),
                    "error": error,
                    "companion_error": wrong,
                }
            )
    return in_order(pd.DataFrame(rows).astype({"clip_similarity": np.float32}))


@pytest.mark.parametrize("seed", range(24))
def test_as_the_oracle(seed):
    rng = np.random.default_rng(seed)
    similarity = [{}, {"fraction": 0.5}, {"fraction": 0.29}, {"fraction": 1.0}, {"minimum": 0.3}]
    config = FiltersConfig(
        image=ImageFilterConfig(max_aspect=rng.choice([2.0, 9.0])),
        caption=CaptionFilterConfig(max_occurrences=rng.choice([None, 3, 9])),
        clip_similarity=ClipSimilarityConfig(**similarity[seed % 5]),
        captions=CaptionsConfig(keep=str(rng.choice(["all", "best"])), at_least=seed % 3 + 1),
    )
    cut = config.clip_similarity.minimum
    rows = pairs(rng, int(rng.choice([1, 12, 60])))
    rules = rules_in_order(config, Removals())
    codes, steps = judged(rows, rules, config, cut)
    with database(threads=1 + seed % 2) as connection:
        judgement, seen = judgement_of(connection, config, rows, cut)
        found = connection.sql("SELECT code FROM judged ORDER BY row").fetchall()
        said = judgement.steps(seen.companions)
        assert [code for (code,) in found] == codes
        kept = rows["clip_similarity"][np.array(codes) == 0]
    counts = Counter(dict(steps))
    told = [(reason.name, counts[code]) for code, reason in enumerate(judgement.reasons)][1:]
    told = [step for step in told if step[0] != "companion" or seen.companions]
    assert said == [("unreadable", codes.count(-1)), *told]
    if seed % 5 in (0, 4):
        assert judgement.cuts.get("clip_similarity") == cut
    elif config.captions == CaptionsConfig():
        assert judgement.cuts.get("clip_similarity") == (kept.min() if len(kept) else None)


def test_each_thing_that_is_wrong_with_companions_is_a_step():
    rows = in_order(
        pd.DataFrame(
            {
                "key": list("abcd"),
                "caption_index": 0,
                "clip_similarity": np.float32(0.3),
                "companion_error": ["mask b", "control a", None, "mask b"],
                "error": ["", "", "", "truncated"],
            }
        )
    )
    with database() as connection:
        judgement, seen = judgement_of(connection, FiltersConfig(), rows)
        steps = judgement.steps(seen.companions)
    assert steps[:3] == [("unreadable", 1), ("companion", 1), ("companion", 1)]
    assert seen.companions == {"control a": 1, "mask b": 1}

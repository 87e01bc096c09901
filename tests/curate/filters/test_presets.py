"""Each preset drops exactly what it should from planted pairs, boundaries included."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from curate.filters import language
from curate.pipeline.config import CurateConfig
from curate.run.schema import to_dataclass
from tests.curate.decide.judging import reasons

CONF = Path(__file__).resolve().parents[3] / "conf"
B32 = "ViT-B-32-quickgelu openai"
MULTILINGUAL = "clip-ViT-B-32-multilingual-v1 sentence-transformers"

GOOD = {
    "caption_index": 0,
    "has_caption": True,
    "width": 600,
    "height": 600,
    "bytes": 50_000,
    "tokens": 8,
    "language": "en",
    "language_confidence": 0.9,
    "clip_similarity": 0.35,
    "aesthetic": 7.5,
    "pwatermark": 0.1,
    "punsafe": 0.01,
}
PLANTED = {
    "good": {},
    "absent": {"has_caption": False, "caption": ""},
    "blank": {"caption": ""},
    "garbled": {"caption": "a cat in a caf\ufffd by night"},
    "unscored": {"clip_similarity": np.nan},
    "sim30": {"clip_similarity": 0.30},
    "sim29": {"clip_similarity": 0.299999},
    "sim28": {"clip_similarity": 0.28},
    "sim27": {"clip_similarity": 0.279999},
    "sim26": {"clip_similarity": 0.26},
    "sim25": {"clip_similarity": 0.259999},
    "bytes5000": {"bytes": 5000},
    "bytes4999": {"bytes": 4999},
    "characters6": {"caption": "a b cd"},
    "characters5": {"caption": "a b c"},
    "characters4": {"caption": "a bc"},
    "words2": {"caption": "two words"},
    "words256": {"caption": " ".join(f"{i:x}" for i in range(256))},
    "words257": {"caption": " ".join(f"{i:x}" for i in range(257))},
    "characters1001": {"caption": "one two " + "xy" * 496 + "z"},
    "side200": {"width": 200, "height": 200},
    "side199": {"width": 400, "height": 199},
    "side512": {"width": 512, "height": 900},
    "side511": {"width": 900, "height": 511},
    "aspect3": {"width": 600, "height": 1800},
    "aspect4": {"width": 600, "height": 1801},
    "pixels": {"width": 10_000, "height": 8_947},
    "bomb": {"width": 10_000, "height": 8_948},
    "german": {"language": "de"},
    "wordless": {"language": "", "language_confidence": 0.0},
    "unsure": {"language_confidence": 0.49},
    "sure": {"language_confidence": 0.5},
    "aesthetic7": {"aesthetic": 7.0},
    "aesthetic5": {"aesthetic": 5.0},
    "unjudged": {"aesthetic": np.nan},
    "watermark8": {"pwatermark": 0.8},
    "watermark81": {"pwatermark": 0.8001},
    "watermark79": {"pwatermark": 0.7999},
    "watermark5": {"pwatermark": 0.5},
    "unsafe5": {"punsafe": 0.5},
    "unsafe51": {"punsafe": 0.5001},
    "tokens78": {"tokens": 78},
    "signs": {"caption": "a b +++ --- !!!"},
    "letters": {"caption": "see" + "e" * 30 + " the cat"},
    "phrases": {"caption": "big red cat sits on big red cat sits on big red cat sits on"},
    "mail": {"caption": "cats from me@cats.example here"},
    **{f"often{i}": {"caption": "an image of something"} for i in range(11)},
    **{f"ten{i}": {"caption": "a picture of something"} for i in range(10)},
}
NO_PAIR, NO_SCORE = {"absent", "blank", "garbled"}, {"unscored"}
LAION = {"bytes4999", "characters4", "bomb"}
MULTI_CUT = {"sim25"}
EN_CUT = MULTI_CUT | {"sim26", "sim27"}
BASIC = {"characters5", "characters4", "words2", "side199", "aspect4"}
FOREIGN = {"german", "wordless"}
OFTEN = {f"often{i}" for i in range(11)}
UNSURE = {"wordless", "unsure"}

DROPPED = {
    "everything": set(),
    "none": set(),
    "laion400m": LAION | FOREIGN | EN_CUT | {"sim28", "sim29"},
    "laion2b": EN_CUT | {"characters4"},
    "laion5b_en": LAION | FOREIGN | EN_CUT | UNSURE,
    "laion5b_multi": set(PLANTED) - {"german"},
    "laion5b_nolang": set(PLANTED) - UNSURE,
    "laion_aesthetic": {"aesthetic7", "aesthetic5", "unjudged", "watermark8", "watermark81"}
    | {"unsafe5", "unsafe51"},
    "sd_v1": {"aesthetic5", "unjudged", "watermark8", "watermark79", "watermark5"}
    | {"watermark81", "side511", "side200", "side199"},
    "datacomp_basic": BASIC | FOREIGN,
    "coyo": BASIC | FOREIGN | OFTEN | {"bytes4999", "words257", "characters1001"},
    "strict": BASIC
    | OFTEN
    | {"bytes4999", "characters1001", "tokens78", "signs", "letters", "phrases", "mail"},
    "default": {"aspect4", "characters1001"},
    "laion_028": EN_CUT | {"aspect4", "characters1001"},
    "laion_030": EN_CUT | {"aspect4", "characters1001", "sim28", "sim29"},
    "laion_clean": EN_CUT | {"aspect4", "characters1001", "watermark81", "unsafe51"},
}
MADE_FOR = {
    "laion400m": (0.30, B32),
    "laion2b": (0.28, B32),
    "laion5b_en": (0.28, B32),
    "laion5b_multi": (0.26, MULTILINGUAL),
    "laion5b_nolang": (0.26, MULTILINGUAL),
    "laion_028": (0.28, B32),
    "laion_030": (0.30, B32),
    "laion_clean": (0.28, B32),
}


def preset(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("curate", overrides=["dataset=folder", f"filters={name}", *overrides])
    return to_dataclass(composed, CurateConfig).filters


def planted():
    own = {key: {"key": key, "caption": f"a cat called {key}"} for key in PLANTED}
    rows = [GOOD | own[key] | changes for key, changes in PLANTED.items()]
    return pd.DataFrame(rows).astype({"clip_similarity": np.float32})


def dropped(config, pairs):
    """The keys that the rules take, one rule after the other."""
    found = reasons(config, pairs, config.clip_similarity.minimum)
    return {key for key, reason in zip(pairs["key"], found, strict=True) if reason}


def test_every_preset_is_planted():
    files = {path.stem for path in (CONF / "filters").glob("*.yaml")}
    assert files == DROPPED.keys() | {"datacomp_clip"}


@pytest.mark.parametrize("name", DROPPED)
def test_a_preset_drops_what_it_should(name):
    assert dropped(preset(name), planted()) == DROPPED[name] | NO_PAIR | NO_SCORE


def test_datacomps_fraction_is_exact():
    pairs = planted().assign(clip_similarity=np.float32(0.25))  # nothing but ties
    able = pairs[~pairs["key"].isin(NO_PAIR)]
    keys = sorted(able["key"])
    kept = set(able["key"]) - dropped(preset("datacomp_clip"), able)
    assert kept == set(keys[: int(len(keys) * 3 // 10)])
    everything = preset("datacomp_clip", "filters.clip_similarity.fraction=1.0")
    assert not dropped(everything, able)


@pytest.mark.parametrize("name", DROPPED)
def test_a_cut_names_the_clip_that_it_was_made_for(name):
    similarity = preset(name).clip_similarity
    assert (similarity.minimum, similarity.made_for) == MADE_FOR.get(name, (None, None))


def test_laion5bs_parts_share_no_pair_and_lose_none_by_language():
    pairs = planted()[["key", "language", "language_confidence"]]

    def kept(name):
        (rule,) = language.rules(preset(name).language)
        return set(pairs["key"][~rule.drops(pairs)])

    parts = [kept(f"laion5b_{part}") for part in ("en", "multi", "nolang")]
    assert sum(map(len, parts)) == len(pairs)
    assert set.union(*parts) == set(pairs["key"])


def test_values_of_a_preset_can_be_typed_over():
    typed = ("filters.columns.aesthetic=null", "+filters.columns.head_aesthetic.minimum=7")
    columns = preset("laion_aesthetic", *typed).columns
    assert columns.keys() == {"pwatermark", "punsafe", "head_aesthetic"}
    assert columns["head_aesthetic"].minimum == 7
    assert preset("coyo", "filters.caption.blocklist=words.txt").caption.blocklist == "words.txt"

"""The notes on a curation appear where they should, and only there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from curate.clip.config import ClipConfig
from curate.decide.frozen import GONE, REPLACED, HeldOutAgain
from curate.decide.leaks import COLUMNS, Leaks
from curate.decide.near import Crowds
from curate.decide.shuffled_captions import Null
from curate.decide.stage import Verdicts
from curate.filters.config import FiltersConfig
from curate.filters.consent import ConsentConfig
from curate.measures.heif import NEEDS_PLUGIN
from curate.pipeline import notes
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from tests.curate.small_ledgers import all_rows, table_of

SCORER = ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai")


def config(name="folder", **columns):
    return CurateConfig(
        clip=SCORER,
        dataset=FolderConfig(name=name, reader="folder", root="x"),
        filters=FiltersConfig(columns=columns),
    )


def verdicts(own: float, held_out: int, count: int = 80) -> Verdicts:
    """Pairs of similarity ``own``; shuffled captions are spread evenly over 0 ... 1."""
    ledger = pd.DataFrame(
        {
            "key": [f"{row:03d}" for row in range(count)],
            "caption_index": 0,
            "clip_similarity": np.float32(own),
            "kept": True,
            "reason": "",
            "split": ["val" if row < held_out else "train" for row in range(count)],
            "duplicate_group": [f"{row:016x}" for row in range(count)],
        }
    )
    return Verdicts(
        table_of(ledger), [], None, "no cut", Null(np.linspace(0, 1, 101, dtype=np.float32))
    )


@pytest.mark.parametrize(
    ("own", "held_out", "count", "says"),
    [
        (0.9, 32, 80, []),
        (0.55, 32, 80, ["55%"]),
        (0.9, 31, 80, ["judging: 31 groups"]),
        (0.1, 0, 80, ["10%", "judging: 0 groups"]),
        (0.62, 32, 80, []),
        (0.1, 0, 29, ["judging: 0 groups"]),  # too few to call a CLIP blind
        (0.1, 0, 30, ["10%", "judging: 0 groups"]),
    ],
)
def test_a_blind_clip_and_few_held_out_images_are_noted(own, held_out, count, says):
    found = notes.of(config(), verdicts(own, held_out, count))
    assert len(found) == len(says)
    assert all(text in note for text, note in zip(says, found, strict=True))


def test_runs_that_were_not_compared_whole_are_noted():
    found = replace(verdicts(own=0.9, held_out=32), crowds=Crowds(runs=1203, looks=20_000_000))
    assert notes.of(config(), found) == [
        "1,203 runs of more than 10,000 pictures with equal parts of their hashes were compared with the first 1,000 of "
        "each only"
    ]


@pytest.mark.parametrize(("masks", "noted"), [(0, False), (3, True), (80, False), (None, False)])
def test_companions_of_some_pictures_alone_are_noted(masks, noted):
    found = verdicts(own=0.9, held_out=32)
    if masks is not None:
        table = all_rows(found.ledger)
        table["mask_sha256"] = ["ab" * 32 if row < masks else None for row in range(len(table))]
        found = replace(found, ledger=table_of(table))
    said = notes.of(config(), found)
    assert len(said) == noted
    assert all("3 of 80 pictures have a NAME.mask.png beside them" in note for note in said)


def test_a_clip_in_use_is_not_suggested():
    poor = verdicts(own=0.5, held_out=32)
    assert "vit_b32_openai" not in notes.blind_clip(poor, SCORER)[0]
    assert "vit_b32_openai" in notes.blind_clip(poor, ClipConfig(name="ViT-L-14"))[0]


@pytest.mark.parametrize(
    ("name", "columns", "says"),
    [
        ("laion5b", {}, "filters=laion_clean"),
        ("laion400m", {"aesthetic": {"minimum": 5}}, "source_nsfw.reject"),
        ("laion400m", {"source_nsfw": {"reject": ["NSFW"]}}, None),
        ("relaion", {"punsafe": {"maximum": 0.5}}, None),
        ("folder", {}, None),
    ],
)
def test_laion_without_a_rule_on_safety_is_noted(name, columns, says):
    found = notes.unsafe(config(name, **columns))
    assert found == [] if says is None else says in found[0]


def test_the_suggested_split_is_large_enough_and_allowed():
    (note,) = notes.few_held_out(8, 160)
    share = float(note.rpartition("split.val=")[2])
    assert 32 / 160 < share < 0.5
    assert "split.val" not in notes.few_held_out(6, 64)[0]


def test_pictures_that_only_a_package_is_missing_for_are_counted():
    whole = verdicts(own=0.9, held_out=32)
    assert notes.unread_heic(whole) == []
    table = all_rows(whole.ledger)
    table.loc[[70, 71, 72], "reason"] = f"unreadable: {NEEDS_PLUGIN}"
    table.loc[71, ["key", "caption_index"]] = ["070", 1]  # two captions of one picture
    (note,) = notes.of(config(), replace(whole, ledger=table_of(table)))
    assert note.startswith("2 .heic: pip install pillow-heif")


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        ({"reserved": "drop", "c2pa": True}, True),
        ({"ai_generated": "drop", "c2pa": True}, False),  # it does not ask what is reserved
        ({"reserved": "drop"}, False),
        ({}, False),
    ],
)
def test_kept_pictures_whose_credentials_cannot_be_read_are_counted(settings, noted):
    whole = verdicts(own=0.9, held_out=32)
    table = all_rows(whole.ledger).assign(c2pa_training=None)
    whole = replace(whole, ledger=table_of(table))
    asked = replace(config(), filters=FiltersConfig(consent=ConsentConfig(**settings)))
    assert notes.of(asked, whole) == []
    table.loc[[70, 71, 72, 73], "c2pa_training"] = "unreadable"
    table.loc[71, ["key", "caption_index"]] = ["070", 1]  # two captions of one picture
    table.loc[73, "kept"] = False
    found = notes.of(asked, replace(whole, ledger=table_of(table)))
    assert len(found) == noted
    assert all(note.startswith("2 kept pictures have Content Credentials") for note in found)


@pytest.mark.parametrize(("twins", "says"), [(0, 0), (1, 0), (2, 1)])
def test_siblings_across_the_split_are_noted(twins, says):
    pairs = pd.DataFrame(
        {"key": ["one", "two"], "split": "val", "other_key": ["first", "second"]}, index=[0, 1]
    ).reindex(columns=COLUMNS)
    found = notes.siblings_across(Leaks(pairs.head(twins), {"val": 40, "test": 0}, 0.5))
    assert len(found) == says
    assert all("5% of the images in val" in note and "two and second" in note for note in found)
    assert notes.siblings_across(Leaks()) == []


def test_what_became_of_the_held_out_pictures_is_noted_where_it_is_not_as_before():
    plain = verdicts(own=0.9, held_out=32)
    assert notes.of(config(), plain) == []
    same = HeldOutAgain("0" * 64, 12, {"val": 7, "test": 5}, joined=3)
    assert notes.of(config(), replace(plain, held_out_again=same)) == []
    left = {"duplicate": 2, GONE: 1, "removed": 4, REPLACED: 1, "unreadable": 3}
    changed = replace(same, listed=23, left=left, of_both=2, moved=3, large=1, in_large=40)
    lost, both, large = notes.of(config(), replace(plain, held_out_again=changed))
    assert lost.startswith(
        "11 of 23 pictures of split.held_out are not held out here: 2 dropped by duplicate, 1 not in these data, "
        "4 removed, 1 replaced by another picture under the same key, 3 unreadable. "
    )
    assert "2 groups hold pictures of split.held_out that were in val and in test" in both
    assert "all are in test now, 3 of them from val" in both
    assert large.startswith("1 groups of more than 32 pictures (40 in all) are held out")


def test_a_rule_that_drops_most_of_what_reaches_it_is_named():
    """Of 80 pairs 40 are unreadable; 30 of the other 40 are three quarters, 29 are not."""
    found = verdicts(0.9, 32)
    found.steps.extend([("unreadable", 40), ("clip_similarity", 30)])
    [note] = notes.of(config(), found)
    assert "clip_similarity dropped 75% of the 40 pairs" in note
    found.steps[1] = ("clip_similarity", 29)
    assert notes.of(config(), found) == []

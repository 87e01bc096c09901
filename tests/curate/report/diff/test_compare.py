"""Amounts against plain loops over random ledgers, and against planted changes."""

import random

import numpy as np
import pandas as pd
import pytest

from curate.report.diff import compare, ledgers
from curate.report.diff.compare import Compared
from curate.report.diff.results import Amount, RuleCount, examples_of

RULES = ("aspect", "clip_similarity", "duplicate")


def row(key, caption="a cat", sha256=None, rule="", split="train", index=0, similarity=0.3):
    kept = not rule
    return {
        "key": key, "caption_index": index, "source": "drawn", "caption": caption,
        "sha256": key if sha256 is None else sha256, "clip_similarity": np.float32(similarity), "clip_model": "tiny 0",
        "kept": kept, "rule": rule, "reason": f"{rule} < 1" if rule else "", "status": "kept" if kept else "dropped",
        "split": split if kept else "", "duplicate_of": "",
    }  # fmt: skip


def ledger(*rows):
    return ledgers.of(pd.DataFrame([*rows]))


def drawn(seed, count=80):
    draw = random.Random(seed)
    rows = [
        row(
            f"k{number if draw.random() < 0.8 else number + count}",
            draw.choice(("cat", "dog")),
            f"h{number if draw.random() < 0.9 else number + count}",
            draw.choice(("", "", *RULES)),
            draw.choice(("train", "val", "test")),
        )
        | {"source": draw.choice(("one", "two"))}
        for number in range(count)
    ]
    return [row for row in rows if draw.random() < 0.9]


def funnel_of(rows):
    left, steps = len(rows), []
    for rule in RULES:
        dropped = sum(row["rule"] == rule for row in rows)
        left -= dropped
        steps.append({"rule": rule, "dropped": dropped, "left": left})
    return steps


def pairs_of(found: Compared):
    return [
        (one, two)
        for one, two in zip(*(side.to_dict("records") for side in found.both), strict=True)
    ]


@pytest.fixture(params=range(8))
def random_ledgers(request):
    before, now = drawn(request.param), drawn(100 + request.param)
    return before, now, compare.compare(ledger(*before), ledger(*now))


def test_amounts_are_those_of_a_loop(random_ledgers):
    _, _, found = random_ledgers
    amounts, pairs = compare.changes(found), pairs_of(found)

    def amount(differs):
        chosen = [two["key"] for one, two in pairs if differs(one, two)]
        return Amount(len(chosen), len(set(chosen)))

    def dropped(one, two):
        return not one["kept"] and not two["kept"]

    assert amounts.verdict == amount(lambda one, two: one["kept"] != two["kept"])
    assert amounts.other_rule == amount(lambda a, b: dropped(a, b) and a["rule"] != b["rule"])
    assert amounts.caption == amount(lambda one, two: one["caption"] != two["caption"])
    assert amounts.picture == amount(lambda one, two: one["sha256"] != two["sha256"])
    assert amounts.renamed == amount(lambda one, two: one["key"] != two["key"])
    assert amounts.moved == amount(
        lambda one, two: one["kept"] and two["kept"] and one["split"] != two["split"]
    )
    assert amounts.added.pairs == len(found.now.pairs) - len(pairs)
    assert amounts.gone.pairs == len(found.before.pairs) - len(pairs)
    assert sum(move.amount.pairs for move in compare.moves(found)) == amounts.moved.pairs
    verdicts = compare.verdicts(found)
    assert sum(v.pairs for v in verdicts) == amounts.verdict.pairs + amounts.other_rule.pairs
    assert sum(v.other_caption for v in verdicts) == sum(
        one["caption"] != two["caption"] and one["rule"] != two["rule"] for one, two in pairs
    )


def test_what_was_held_out_and_is_trained_on_is_found_by_its_bytes(random_ledgers):
    before, now, found = random_ledgers
    held = {row["sha256"] for row in before if row["split"] in ("val", "test")}
    trained = {row["sha256"] for row in now if row["split"] == "train"}
    assert compare.changes(found).unheld == len(held & trained)


def test_drops_of_rules_add_up(random_ledgers):
    before, now, found = random_ledgers
    changes = compare.rules(found, funnel_of(before), funnel_of(now))
    assert [change.rule for change in changes] == list(RULES)
    for change in changes:
        for rows, count in ((before, change.before), (now, change.now)):
            reached = [r for r in rows if r["rule"] not in RULES[: RULES.index(change.rule)]]
            dropped = [r for r in rows if r["rule"] == change.rule]
            assert count == RuleCount(len(reached), len(dropped))
        parts = change.added - change.gone + change.entered - change.left
        assert change.now.dropped - change.before.dropped == parts


def test_sources_add_up(random_ledgers):
    before, now, found = random_ledgers
    for source in compare.sources(found):
        mine = [[row for row in rows if row["source"] == source.source] for rows in (before, now)]
        assert [source.pairs_before, source.pairs_now] == list(map(len, mine))
        assert [source.kept_before, source.kept_now] == [
            sum(r["kept"] for r in rows) for rows in mine
        ]
    assert sum(s.added for s in compare.sources(found)) == compare.changes(found).added.pairs


def test_the_table_has_every_change_once(random_ledgers):
    _, _, found = random_ledgers
    table, amounts = compare.table(found), compare.changes(found)
    for kind in (*compare.KINDS, "added", "gone"):
        listed = table["change"].str.split(",").map(lambda kinds, kind=kind: kind in kinds)
        assert listed.sum() == getattr(amounts, kind).pairs
    gone = table[table["change"] == "gone"]
    assert gone["key_now"].isna().all()
    assert set(gone["key_before"]) == set(found.gone["key"])


def test_planted_changes():
    same = [row(f"s{i}") for i in range(10)]
    before = ledger(
        *same, row("cut"), row("back", rule="aspect"), row("other", rule="aspect"), row("leaves"), row("old", "fox", "F"),
        row("words", "a dog"), row("replaced", sha256="1"), row("moves"), row("two", "one"), row("two", "two", index=1),
    )  # fmt: skip
    now = ledger(
        *same, row("cut", rule="clip_similarity"), row("back"), row("other", rule="clip_similarity"), row("comes"),
        row("new", "fox", "F"), row("words", "a hound"), row("replaced", sha256="2"), row("moves", split="val"),
        row("two", "two", index=0),
    )  # fmt: skip
    found = compare.compare(before, now)
    amounts = compare.changes(found)
    assert (amounts.added, amounts.gone) == (Amount(1, 1), Amount(2, 2))
    assert amounts.verdict == Amount(2, 2)
    for name in ("other_rule", "caption", "picture", "renamed", "moved"):
        assert getattr(amounts, name) == Amount(1, 1), name
    verdicts = {(v.before, v.now): v for v in compare.verdicts(found)}
    assert {rules: v.pairs for rules, v in verdicts.items()} == {
        ("kept", "clip_similarity"): 1,
        ("aspect", "kept"): 1,
        ("aspect", "clip_similarity"): 1,
    }
    assert verdicts["aspect", "kept"].reason == "aspect < 1"
    examples = compare.examples(found, compare.verdicts(found))
    [example] = examples[examples_of(verdicts["kept", "clip_similarity"])]
    assert (example.before.verdict, example.now.verdict) == ("kept", "clip_similarity < 1")
    [renamed] = examples["renamed"]
    assert (renamed.before.key, renamed.now.key) == ("old", "new")
    assert [example.now.key for example in examples["added_kept"]] == ["comes"]


def test_a_ledger_of_an_earlier_version_is_compared_by_what_it_has():
    now = [row("a"), row("b", rule="clip_similarity"), row("c", "a dog"), row("d", split="val")]
    old = pd.DataFrame([row("a"), row("b"), row("c"), row("d")])
    old = old.drop(columns=["sha256", "rule", "status", "split", "caption_index", "duplicate_of"])
    before = ledgers.of(old)
    assert before.missing == ("sha256", "rule", "split", "caption_index")
    amounts = compare.changes(compare.compare(before, ledger(*now)))
    assert (amounts.verdict.pairs, amounts.caption.pairs) == (1, 1)
    assert (amounts.added.pairs, amounts.gone.pairs, amounts.renamed.pairs) == (0, 0, 0)
    assert (amounts.picture.pairs, amounts.moved.pairs, amounts.unheld) == (0, 0, None)


def test_rules_of_ledgers_without_them_are_the_reasons_first_words():
    rows = pd.DataFrame([row("a", rule="clip_similarity"), row("b", rule="duplicate"), row("c")])
    rows["reason"] = ["clip_similarity < 0.28", "unreadable: truncated", ""]
    read = ledgers.of(rows.drop(columns=["rule", "status"])).pairs
    assert read["rule"].tolist() == ["clip_similarity", "unreadable", "kept"]
    assert read["status"].tolist()[:2] == ["dropped", "unreadable"]
    partly = rows.assign(rule=[None, "unreadable", None])
    assert ledgers.of(partly).pairs["rule"].tolist() == ["clip_similarity", "unreadable", "kept"]


def test_orders_of_rules_are_merged():
    merged = compare._merged(
        [["unreadable", "aspect", "removed"], ["unreadable", "language", "clip"]]
    )
    assert merged == ["unreadable", "aspect", "removed", "language", "clip"]


def test_a_funnel_that_disagrees_with_its_ledger_gives_no_keep_rates():
    rows = [row("a"), row("b", rule="aspect")]
    found = compare.compare(ledger(*rows), ledger(*rows))
    wrong = [{"rule": "aspect", "dropped": 2, "left": 0}]
    [change] = compare.rules(found, wrong, funnel_of(rows)[:1])
    assert change.before == RuleCount(None, 1)
    assert change.now == RuleCount(2, 1)
    assert change.now.keep_rate == 0.5
    assert compare.disagrees(found.before.pairs, wrong)


def test_empty_ledgers():
    nothing = ledgers.of(pd.DataFrame([row("a")]).iloc[:0])
    found = compare.compare(nothing, nothing)
    assert compare.changes(found).added == Amount()
    assert len(compare.table(found)) == 0
    assert compare.examples(found, ()) == {}

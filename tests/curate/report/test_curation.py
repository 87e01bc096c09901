"""The report: every number equals the result of its query, and the page stays small and inert."""

import io
import re
from dataclasses import asdict, replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from curate.clip.config import ClipConfig
from curate.decide.leaks import COLUMNS, Leaks
from curate.decide.shuffled_captions import Null
from curate.decide.stage import Verdicts
from curate.measures.decode import UnreadableImage
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.report import curation as report
from curate.report import drop_rates, duplicates, figures, headline, licences, siblings, similarity
from curate.report.pictures import Pictures
from curate.run import ledger
from curate.run.config import RunConfig
from curate.run.intervals import wilson
from tests.curate import small_ledgers
from tests.curate.small_ledgers import all_rows, counted, table_of

HOSTILE = '</script><img src=x onerror=alert(1)> `it\'s` "$x" \\n\u202e\n#'
REASONS = ["", "aspect > 3", "language is not en", "clip_similarity < 0.28", "duplicate"]
EXTRA = ["planted_mismatch", "true_caption", "licence", "language", "text_share", "source_split"]
STEPS = ["unreadable", "no_caption", "aspect", "language", "no_similarity", "clip_similarity"]


def make_verdicts(pairs=400, hostile=HOSTILE) -> Verdicts:
    """A ledger with every reason, several captions per image, duplicates, gaps and hostile texts."""
    rng = np.random.default_rng(0)
    reason = np.array([*REASONS, f"unreadable: {hostile}"])[rng.integers(0, 6, pairs)]
    status = np.select(
        [reason == "", [r.startswith("unread") for r in reason]], ["kept", "unreadable"], "dropped"
    )
    group, copies = ([f"{i // of:016x}" for i in range(pairs)] for of in (12, 6))
    table = pd.DataFrame(
        {
            "key": [f"k{i // 2}" for i in range(pairs)],
            "caption_index": np.arange(pairs, dtype=np.int32) % 2,
            "source": rng.choice(["one", hostile], pairs),
            "source_split": rng.choice(["train", "val"], pairs),
            "caption": rng.choice(["a cat", "2 dogs on a mat", hostile], pairs),
            "width": rng.integers(60, 900, pairs, dtype=np.int32),
            "height": rng.integers(60, 900, pairs, dtype=np.int32),
            "clip_similarity": rng.uniform(0.28, 0.4, pairs).astype(np.float32),
            "clip_model": "small 0",
            "kept": reason == "",
            "rule": [r.partition(":")[0].partition(" ")[0] for r in reason],
            "reason": reason,
            "status": status,
            "split": np.where(reason == "", "train", ""),
            "duplicate_group": np.where(status == "unreadable", "", group),
            "copy_group": np.where(status == "unreadable", "", copies),
            "phash": [f"{i // 2 * 0x9E3779B97F4A7C15 % 2**64:016x}" for i in range(pairs)],
            "phash_mirrored": [f"{i // 2 * 0xD1B54A32D192ED03 % 2**64:016x}" for i in range(pairs)],
            "duplicate_of": np.where(reason == "duplicate", "k0", ""),
            "location": [f"{i // 2}" for i in range(pairs)],
            "licence": rng.choice(["CC0", hostile, "?", ""], pairs),
            "language": rng.choice(["en", "de"], pairs),
            "text_share": rng.uniform(0, 0.4, pairs),
            "planted_mismatch": rng.random(pairs) < 0.2,
            "true_caption": hostile,
            "odd `name`\n#": 1,
        }
    )
    table.loc[reason == "clip_similarity < 0.28", "clip_similarity"] = np.float32(0.25)
    table.loc[table.index[::3][:5], "clip_similarity"] = np.float32(0.28)
    table.loc[[r.startswith(("unread", "aspect")) for r in reason], "clip_similarity"] = np.nan
    steps = [(name, int((table["rule"] == name).sum())) for name in [*STEPS, "duplicate"]]
    null = Null(np.sort(rng.normal(0.2, 0.05, 4_000)).astype(np.float32))
    return Verdicts(table_of(table), steps, 0.28, "minimum=0.28", null)


def rows(verdicts: Verdicts) -> pd.DataFrame:
    """All rows of the ledger."""
    return all_rows(verdicts.ledger)


def with_rows(verdicts: Verdicts, table: pd.DataFrame, **changes) -> Verdicts:
    """The same with other rows in the ledger."""
    return replace(verdicts, ledger=table_of(table), **changes)


def picture(location: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (int(location) % 256, 99, 0)).save(stream, "PNG")
    return stream.getvalue()


def noise(location: str) -> bytes:
    rng = np.random.default_rng(int(location))
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def render(tmp_path):
    config = CurateConfig(
        run=RunConfig(root=str(tmp_path), name="small"),
        dataset=FolderConfig(name="small", reader="folder", root="here"),
        clip=ClipConfig(name="small"),
    )

    def write(verdicts: Verdicts, load=picture) -> str:
        found = figures.summarise(verdicts, [HOSTILE])
        report.write(config.run.folder / "curate", asdict(config), verdicts, found, load)
        return (config.run.folder / "curate" / "report.html").read_text()

    return write


def counts(html: str) -> list[tuple[str, int]]:
    found = re.findall(r'<abbr title="([^"]*)">([\d,]+)</abbr>', html)
    return [(unescape(title), int(number.replace(",", ""))) for title, number in found]


def test_every_count_equals_the_result_of_its_query(render, tmp_path):
    verdicts = make_verdicts()
    html = render(verdicts)
    filled = rows(verdicts).assign(
        **{name: "" for name in ledger.COLUMNS if name not in rows(verdicts)}
    )
    small_ledgers.write(tmp_path / "small" / "curate" / "ledger", filled)
    [code] = re.findall(r"<pre>(import pandas.*?)</pre>", html, re.DOTALL)
    exec(unescape(code), read := {})
    read = read["ledger"]
    found = counts(html)
    assert len(found) > 200
    for expression, number in dict(found).items():
        assert eval(expression, {"ledger": read}) == number, expression


def test_all_sections_are_there_and_the_page_is_small_and_inert(render):
    html = render(make_verdicts())
    anchors = re.findall(r'<section id="([^"]+)"', html)
    assert anchors == [
        *("funnel", "similarity", "planted", "above", "below", "best", "worst", "reasons"),
        *("unreadable", "duplicates", "siblings", "drop-rates", "licences", "settings"),
    ]
    assert len(html) < 5_000_000
    assert "<img src=x" not in html
    assert "\u202e" not in html


def test_thumbnails_stop_at_the_byte_limit_of_the_page():
    table = rows(make_verdicts(40))
    sheet = Pictures(noise, room_bytes=50_000).sheet(table)
    assert len(re.findall(r'src="data:', sheet)) < 40
    assert sum(map(len, re.findall(r'src="([^"]*)"', sheet))) <= 50_000
    assert "left out: page size limit" in sheet


def test_only_images_that_are_shown_are_loaded_each_once(render):
    loaded = []
    html = render(
        make_verdicts(2_000), lambda location: loaded.append(location) or picture(location)
    )
    assert len(loaded) == len(set(loaded)) <= html.count('src="data:') < 150


def test_an_image_that_cannot_be_read_is_named(render):
    def gone(location: str) -> bytes:
        raise UnreadableImage(f"{location} is <gone>")

    assert "is &lt;gone&gt;" in render(make_verdicts(), gone)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "change",
    [
        lambda v: replace(v, null=Null(np.zeros(0, np.float32))),
        lambda v: replace(v, cut=None, cut_by="no cut"),
        lambda v: with_rows(v, rows(v).assign(clip_similarity=np.float32(np.nan))),
        lambda v: with_rows(v, rows(v).drop(columns=EXTRA)),
        lambda v: with_rows(
            v,
            rows(v).iloc[:1].assign(kept=True, rule="", reason="", status="kept"),
            steps=[(name, 0) for name in STEPS],
        ),
    ],
    ids=["no null", "no cut", "no similarity", "no further columns", "one pair"],
)
def test_a_page_for_data_with_something_missing(render, change):
    verdicts = change(make_verdicts())
    for expression, number in dict(counts(render(verdicts))).items():
        assert eval(expression, {"ledger": rows(verdicts)}) == number, expression


def test_other_cuts_count_pairs_that_later_rules_dropped():
    assert similarity.reaching(make_verdicts()) == ["", "clip_similarity", "duplicate"]


def test_the_tried_cuts_follow_the_range_of_similarities():
    assert similarity.cuts(counted(np.full(9, 0.3))) == [step / 100 for step in range(20, 36)]
    elsewhere = similarity.cuts(counted(np.linspace(0.4, 0.8, 101)))
    assert elsewhere[0] == pytest.approx(0.404)
    assert elsewhere[-1] == pytest.approx(0.796)
    assert len(elsewhere) == 16


def test_only_a_bucket_with_a_higher_drop_rate_is_marked():
    table = rows(make_verdicts(4_000)).assign(language="en", reason="", source="one")
    table.loc[::4, "language"] = "de"
    rng = np.random.default_rng(1)
    dropped = rng.random(4_000) < np.where(table["language"] == "de", 0.5, 0.3)
    table["reason"] = np.where(dropped, "cut", "")
    asked = table_of(table)
    judged = drop_rates.Judged("status == status", "true", "reason != ''", "reason != ''")
    found = drop_rates.rates(asked, list(drop_rates.buckets(asked)), judged)
    marked = [(rate.bucket.measure, rate.bucket.label) for rate in drop_rates.highest(found)]
    assert marked == [("language", "de")]
    assert found[0].checked.value == 4_000
    by_measure: dict[str, int] = {}
    for rate in found[1:]:
        name = rate.bucket.measure
        by_measure[name] = by_measure.get(name, 0) + rate.checked.value
    assert set(by_measure.values()) == {4_000}  # each pair is in one bucket of every measure
    assert "source" not in by_measure  # one bucket has nothing to compare with


def test_duplicate_groups_are_counted():
    def table(groups: list[str]) -> str:
        frame = rows(make_verdicts(len(groups))).assign(
            key=[f"k{i}" for i in range(len(groups))], caption_index=0, copy_group=groups
        )
        return duplicates.section(table_of(frame), Pictures(picture))

    assert "No two decoded images" in table(["a", "b", "", ""])
    numbers = [number for _, number in counts(table([*"aabbcccddddddd", "", ""]))]
    assert numbers[:6] == [2, 4, 1, 3, 1, 7]  # groups and images of two, of three, of five to nine


def cells(html):
    return re.findall(r"<td.*?>(.*?)</td>", re.sub("<(?!/?td)[^>]*>", "", html))


def test_near_copies_across_splits_are_shown(monkeypatch):
    table = rows(make_verdicts(80)).drop_duplicates("key").assign(kept=True, split="train")

    def section() -> str:
        return duplicates.section(table_of(table), Pictures(picture))

    assert "No two kept images in different splits" in section()
    table.loc[table["key"].isin(["k3", "k9"]), "phash"] = ["00ffff00ffff0000", "00ffff00ffff00ff"]
    table.loc[table["key"] == "k3", "split"] = "val"
    html = section()
    assert "1 pairs of kept images in different splits" in html
    _, _, shown = html.partition("Near copies across splits")
    assert cells(shown)[:6] == ["k3", "val", "k9", "train", "8", ""]
    assert shown.count('src="data:') == 2
    table.loc[table["key"] == "k3", "phash_mirrored"] = "00ffff00ffff00ff"
    _, _, shown = section().partition("Near copies across splits")
    assert cells(shown)[4:6] == ["0", "yes"]  # mirrored
    monkeypatch.setattr(duplicates, "MOST_COMPARED", len(table) - 1)
    assert "Not measured: near copies" in section()


def test_siblings_and_what_is_left_of_them_across_the_split():
    verdicts = make_verdicts(80)
    html = siblings.section(verdicts, Pictures(picture))
    assert "groups hold siblings" in html
    assert "Not measured: siblings across the split" in html
    for expression, number in counts(html):
        assert eval(expression, {"ledger": rows(verdicts)}) == number, expression
    own, other = rows(verdicts).query("kept")["key"].unique()[:2]
    row = dict.fromkeys(COLUMNS, HOSTILE) | {"key": own, "other_key": other, "split": "val"}
    pairs = pd.DataFrame([row | {"cosine": 0.9, "shared": 0.8}])
    left = replace(verdicts, leaks=Leaks(pairs, {"val": 8, "test": 0}, 0.7), loosened=9)
    html = siblings.section(left, Pictures(picture))
    assert "Of 8 images in val, 1 have a sibling in train (12.5%)." in html
    assert "column named group" in html
    assert "9 images would have been joined" in html
    assert cells(html.partition("left across the split")[2])[:5] == [
        own,
        "val",
        other,
        "0.900",
        "80%",
    ]
    table = rows(verdicts)
    alone = with_rows(verdicts, table.assign(copy_group=table["duplicate_group"]))
    assert "No siblings were joined" in siblings.section(alone, Pictures(picture))


def test_pairs_without_a_licence_count_as_unknown():
    table = rows(make_verdicts(6)).assign(licence=["CC0", "?", "", None, "CC0", "BY"], kept=True)
    found = re.findall(
        r"<tr><td>(.*?)</td>.*?>(\d+)</abbr>.*?>(\d+)</abbr>",
        licences.section(table_of(table)),
    )
    assert found == [("CC0", "2", "2"), ("BY", "1", "1"), ("unknown", "3", "3")]
    nothing = licences.section(table_of(table.drop(columns="licence")))
    assert [number for _, number in counts(nothing)] == [6, 6]


@pytest.mark.parametrize(
    "columns",
    [
        {"licence": [1, 2, 2, 0, 1, 2]},
        {"licence": [1.0, None, 2.0, 2.0, None, 1.0]},
        {
            "licence": ["", "BY", None, "?", "CC0", ""],
            "LICENSE": ["CC0", "BY-SA", "?", None, "", "3"],
        },
        {"license": list("abcdeg") * 4 + list("hijklmnopqrstuvwxyz")},
    ],
)
def test_licence_queries_work_for_any_type_and_column(columns):
    size = len(next(iter(columns.values())))
    table = rows(make_verdicts(size)).drop(columns="licence").assign(**columns)
    found = counts(licences.section(table_of(table)))
    assert sum(number for _, number in found[::2]) == size
    for expression, number in found:
        assert eval(expression, {"ledger": table}) == number, expression


def test_wilson_gives_the_published_intervals():
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("own", "by", "says"),
    [
        (0.35, "minimum=0.28", "fell to similarity"),
        (0.19, "minimum=0.28", "fell to similarity, which does not know these pictures"),
    ],
)
def test_the_headline_says_what_became_of_the_pairs(own, by, says):
    table = rows(made := make_verdicts())
    table.loc[table["clip_similarity"].notna(), "clip_similarity"] = np.float32(own)
    made = with_rows(made, table)
    found = figures.summarise(replace(made, cut_by=by), [])
    text = re.sub("<[^>]+>", " ", str(headline.banner(made, found)))
    assert f"{found['kept']} of 400 pairs kept" in text
    assert says in text
    fallen = found["pairs_in"] - found["kept"]
    assert (
        sum(int(n) for n in re.findall(r"(\d+) (?:fell|are copies|is a copy|have|has|could)", text))
        == fallen
    )


@pytest.mark.parametrize(
    ("rule", "count", "says"),
    [
        ("duplicate", 1, "1 is a copy of another"),
        ("duplicate", 2, "2 are copies of others"),
        ("no_caption", 1, "1 has no caption"),
        ("no_caption", 2, "2 have no caption"),
        ("score", 1, "1 fell to the rule on score"),
    ],
)
def test_the_headline_counts_in_singular_and_plural(rule, count, says):
    assert headline._parts({"rule": rule, "dropped": count}, {}, blind=False) == [says]


def test_the_headline_says_what_was_not_measured(monkeypatch):
    made = replace(make_verdicts(), null=Null(np.zeros(0, np.float32)))
    found = figures.summarise(made, [])
    assert "not measured: no captions to shuffle" in str(headline.banner(made, found))
    assert "not looked for" not in str(headline.banner(made, found))
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 3)
    assert "not looked for" in str(headline.banner(made, found))
    unscored = with_rows(made, rows(made).assign(clip_similarity=np.float32("nan")))
    assert "Similarity was not measured" in str(headline.banner(unscored, found))


def test_a_removed_picture_is_not_loaded(render):
    verdicts = make_verdicts()
    table = rows(verdicts)
    gone = table["key"].isin(["k0", "k1", "k2"])
    removed = {
        "kept": False,
        "rule": "removed",
        "reason": "removed",
        "status": "dropped",
        "split": "",
    }
    table.loc[gone, list(removed)] = list(removed.values())
    table.loc[gone, "clip_similarity"] = np.float32(0.9)  # among the highest
    verdicts = with_rows(verdicts, table)
    loaded = []
    html = render(verdicts, load=lambda location: loaded.append(location) or picture(location))
    assert "removed: not shown" in html
    assert loaded
    assert {"0", "1", "2"}.isdisjoint(loaded)

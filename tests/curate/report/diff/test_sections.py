"""The page: inert with any caption, small, and the same parts for other pages."""

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest

from curate.report import page
from curate.report.diff import lines, pictures, results, runs, sections
from curate.run.typed_json import typed
from tests.curate.report.diff.conftest import HOSTILE


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def found(two_runs):
    return runs.compare_runs(*two_runs).difference


@pytest.fixture
def shown(found, two_runs):
    return pictures.pictures(found, *two_runs)


def test_the_page_says_what_changed(found, shown):
    html = sections.render(found, shown)
    for said in (
        "+1 pair (all kept), −1, 2 changed verdict (1 now dropped for clip_similarity, 1 now kept)",
        "1 caption changed, 1 picture replaced, 1 picture moved between splits, 1 picture renamed",
        "filters.clip_similarity.minimum",
        "clip_similarity &lt; 0.31",
    ):
        assert said in html
    assert len(html) < 5_000_000


def test_hostile_captions_and_names_make_no_element(found, shown):
    tags = [tag for tag, _ in Elements(sections.render(found, shown)).found]
    assert HOSTILE in [e.now.caption for e in found.examples["caption"]]
    for tag, attrs in Elements(sections.render(found, shown)).found:
        assert not any(name.startswith("on") for name in attrs)
        assert tag != "script"
        if tag == "img":
            assert attrs["src"].startswith("data:image/webp;base64,")
    calm = _with_text(found, HOSTILE, "a calm caption")
    assert [tag for tag, _ in Elements(sections.render(calm, shown)).found] == tags
    hostile = _with_text(found, "drawn", HOSTILE)
    hostile = _with_text(hostile, "clip_similarity < 0.31", HOSTILE)
    hostile = _with_text(hostile, "done", HOSTILE)
    assert [tag for tag, _ in Elements(sections.render(hostile, shown)).found] == tags


def _with_text(found, old, new):
    """The same comparison with one text replaced wherever it stands."""

    def changed(value):
        if isinstance(value, str):
            return new if value == old else value
        if isinstance(value, dict):
            return {name: changed(item) for name, item in value.items()}
        return [changed(item) for item in value] if isinstance(value, list | tuple) else value

    return typed(results.Difference, changed(asdict(found)), "diff")


def test_other_pages_embed_the_sections_with_their_own_anchors(found, shown):
    first, *others = sections.sections(found, shown, prefix="retrained")
    assert first.anchor == "retrained-changes"
    anchors = [section.anchor for section in (first, *others)]
    assert len(set(anchors)) == len(anchors) > 8
    assert all(anchor.startswith("retrained-") for anchor in anchors)
    whole = page.render(
        page.Page("Retraining", "", [page.Section("Own", "own", first.body), *others])
    )
    assert 'id="own"' in whole
    assert sections.overview(found).body == first.body


def test_without_pictures_it_is_a_page_too(found):
    html = sections.render(found, {})
    assert "<img" not in html
    assert "not shown" in html


def test_an_earlier_picture_stands_for_no_other_one(found):
    before = results.State("k", "a cat", "kept", "train", 0.3, "A")
    earlier = {("before", "k"): pictures.Shown("data:image/webp;base64,earlier")}
    for now, is_shown in (("A", True), ("B", False), ("", False)):
        example = results.Example(before, replace(before, verdict="aspect > 3", sha256=now))
        cards = sections._Cards(found, earlier)
        assert ("earlier" in cards.sheet([example])) is is_shown
    assert "earlier" in cards.sheet([results.Example(before, None)])


def test_what_did_not_change_has_no_section(two_runs):
    before, _ = two_runs
    same = runs.compare_runs(before, before).difference
    titles = [section.title for section in sections.sections(same, {})]
    assert titles == ["What changed", "By rule", "By source", "Settings and versions"]
    assert lines.headline(same) == (
        "nothing changed: the same 25 pairs with the same captions, pictures, verdicts and split"
    )


def test_pictures_are_described_for_those_who_do_not_see_them(found, shown):
    images = [attrs for tag, attrs in Elements(sections.render(found, shown)).found if tag == "img"]
    assert images
    assert all(attrs["alt"] for attrs in images)


def test_the_json_is_read_as_it_was_written(found, tmp_path):
    path = tmp_path / "later/diff/done/diff.json"
    results.save(found, path)
    assert results.load(path) == found
    text = path.read_text()
    path.write_text(text.replace('"k30"', '"k31"'))
    with pytest.raises(ValueError, match=r"is damaged; type: python -m curate.diff done .*later"):
        results.load(path)
    path.write_text(
        re.sub(
            r'\s*"checksum": "\w+",', "", text.replace('"schema_version": 1', '"schema_version": 9')
        )
    )
    with pytest.raises(ValueError, match="has schema_version 9, not 1"):
        results.load(path)


def test_other_clips_are_said_and_no_change_of_their_numbers_is(two_runs, edit, shown):
    before, now = two_runs
    edit(now, lambda rows: rows.assign(clip_model="large 1"))
    found = runs.compare_runs(before, now).difference
    assert any(
        "similarities are of different CLIPs, tiny before and large now" in n for n in found.notes
    )
    html = sections.render(found, shown)
    assert "0.320 | 0.320" in html
    edit(now, lambda rows: rows.assign(clip_model="tiny 9"))
    [note] = [n for n in runs.compare_runs(before, now).difference.notes if "similarit" in n]
    assert "similarities are of tiny with two fingerprints, 0 and 9" in note

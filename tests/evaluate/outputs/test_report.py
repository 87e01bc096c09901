"""The page, the summary and the JUnit file say what was found, and a caption stays text in each."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from evaluate import run
from evaluate.outputs import report, summary
from evaluate.outputs.glossary import shown
from evaluate.outputs.headline import findings
from evaluate.results import BASE_KEPT, Check, Metric, Results
from finetune.retention.scale import Choice, Measured
from tests.evaluate.conftest import HOSTILE

FUNNEL = {
    "pairs_in": 10,
    "kept": 8,
    "samples": {"train": 6, "val": 1, "test": 1},
    "rules": [{"rule": HOSTILE, "dropped": 2, "left": 8}],
}


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def render(tmp_path):
    def draw(found: Results) -> str:
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for picture in found.pictures:
            for name in picture.files.values():
                path: Path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise).save(path)
        real = {picture.key: Image.fromarray(noise) for picture in found.pictures}
        return report.render(found, tmp_path, real, FUNNEL)

    return draw


def test_hostile_caption_stays_text(results: Results, render):
    elements = Elements(render(results)).found
    assert "script" not in {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attrs in elements for name in attrs)
    images = [attrs for tag, attrs in elements if tag == "img"]
    assert len(images) == 4  # base, kept, last and the held-out picture
    assert all(attrs["src"].startswith("data:image/webp;base64,") for attrs in images)
    assert HOSTILE in images[0]["alt"]


def test_verdict_comes_first_and_every_section_is_there(results: Results, render):
    html = render(results)
    anchors = [attrs["id"] for tag, attrs in Elements(html).found if tag == "section"]
    assert anchors[:3] == ["headline", "checks", "pictures"]
    assert {"loss", "thirds", "noise", "prompts", "data", "not-measured", "glossary"} <= set(
        anchors
    )
    assert html.index("Overfitting") < html.index("a rule" if "a rule" in html else "Checks</h2>")
    assert "the split &#39;test&#39; is empty" in html
    assert "Kept (step 450)" in html
    assert "Last (step 900)" in html


def test_an_export_of_another_checkpoint_is_said(results: Results, render):
    assert "another checkpoint than the kept" not in render(results)
    last = replace(results.checkpoints[-1], val=Metric(-0.03, -0.04, -0.02, 128, on="val"))
    checkpoints = (*results.checkpoints[:-1], last)
    del results.metrics["exported_change"]  # an evaluator that may be gone
    verdict = replace(results.verdict, exported=900)
    html = render(replace(results, verdict=verdict, checkpoints=checkpoints))
    assert "another checkpoint than the kept one: step 900" in html
    assert "against the base, on held-out pictures: -3.0 % [-4.0, -2.0]." in html
    results.metrics["exported_change"] = Metric(-0.02, -0.03, -0.01, 100, 80, "test")
    html = render(replace(results, verdict=verdict, checkpoints=checkpoints))
    assert "against the base, on test pictures: -2.0 % [-3.0, -1.0]." in html


def headline_of(html: str) -> str:
    start = html.index('<div class="parts">')
    return " ".join(re.sub(r"<[^>]+>", " ", html[start : html.index("</section>", start)]).split())


def test_the_headline_has_a_result_a_trend_and_costs(results: Results, render):
    said = headline_of(render(results))
    result = (
        "Result ✓ good Step 450 has 6.1 % less loss than the base model [-7.4, -4.9] on 128 held-out pictures "
        "in 96 groups, by which this checkpoint was chosen."
    )
    assert result in said
    assert "Trend ! attention Overfitting. Since step 900 ..." in said
    assert "Cost ✓ good Pictures show their captions as well as the base's: +0.200" in said.replace(
        "&#39;", "'"
    )
    assert "Gate ✓ passed Of 1 rules 1 met." in said


def test_what_nobody_asked_for_is_said_at_the_end_alone(results: Results, render):
    unasked = Metric(reason="not asked for, distribution.precision_recall=true measures it")
    html = render(replace(results, metrics=results.metrics | {"recall_kept": unasked}))
    assert html.count("distribution.precision_recall=true") == 1
    assert html.index('id="not-measured"') < html.index("distribution.precision_recall=true")


def test_what_was_chosen_on_val_is_reported_on_test(results: Results):
    unseen = Metric(-0.05, -0.07, -0.03, 100, 80, "test")
    found = findings(results.verdict, results.metrics | {"test_change": unseen})
    assert "5.0 % less loss than the base model [-7.0, -3.0] on 100 test pictures" in found[0].text
    assert "chosen" not in found[0].text


def test_a_base_that_is_kept_is_no_good_result(results: Results):
    verdict = replace(results.verdict, word="regressing", kept=0, best=0)
    found = findings(verdict, results.metrics)[0]
    assert (found.state, found.text[:38]) == ("bad", "No checkpoint is better than the base ")


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ((-0.2, -0.3, -0.1), "bad"),
        ((-0.2, -0.5, 0.1), "warn"),
        ((-0.01, -0.3, 0.3), "info"),  # neither a loss nor none is shown
        ((-0.01, -0.02, 0.0), "good"),
    ],
)
def test_a_cost_is_what_its_interval_shows(results: Results, change, state):
    metrics = results.metrics | {"clip_change": Metric(*change, 64, 64, "val")}
    (cost,) = [f for f in findings(results.verdict, metrics) if f.part == "cost"]
    assert cost.state == state
    assert shown("clip_change", metrics["clip_change"]) in cost.text


@pytest.mark.parametrize(("exported", "allowed"), [(450, True), (900, False)])
def test_a_rule_on_the_export_is_on_the_kept_checkpoint_where_they_are_one(
    results: Results, exported, allowed
):
    """Other weights are exported than kept: a rule on the export says nothing of the kept ones."""
    name = "retention_loss_change"
    rule = Check("a", f"{name}_exported", "lower bound <= +60 %", "+52 %", "passed", "")
    verdict = replace(results.verdict, exported=exported)
    metrics = results.metrics | {name: Metric(0.52, 0.44, 0.6, 48, 48)}
    cost = next(f for f in findings(verdict, metrics, [rule]) if f.section == "retention")
    assert cost.state == ("warn" if allowed else "bad")
    assert ("within what the gate allows: lower bound <= +60 %" in cost.text) is allowed


def test_costs_are_alike_on_page_terminal_and_summary(results: Results, render, tmp_path):
    bad = results.metrics | {"clip_change": Metric(-0.2, -0.3, -0.1, 64, 64, "val")}
    found = replace(results, metrics=bad, findings=findings(results.verdict, bad), gate="warned")
    lines: list[str] = []
    run.announce(found, tmp_path, lines.append)
    text = "Pictures show less of what their captions say than the base's"
    assert any(line.startswith("cost") and text in line for line in lines)
    assert text in summary.markdown(found).replace("\\", "")
    assert text in headline_of(render(found)).replace("&#39;", "'")
    assert "Gate: **warned**" in summary.markdown(found)
    assert 'name="gate" value="warned"' in summary.junit(found)
    assert "! warned" in headline_of(render(found))


def test_the_headline_names_every_check_that_was_not_made(results: Results, render):
    said = headline_of(render(results))
    assert "Not measured: test loss (the split &#39;test&#39; is empty)." in said
    few = dict.fromkeys(("heldout_change", "exported_change"), Metric(reason="only 9 pictures"))
    none = dict.fromkeys(("clip_base", "clip_kept", "clip_change"), Metric(reason="8 captions"))
    skipped = Check("c", "clip_change", "value > 0", "not measured", "skipped", "8 captions")
    verdict = replace(results.verdict, word="inconclusive")
    metrics = results.metrics | few | none
    found = replace(
        results,
        verdict=verdict,
        metrics=metrics,
        findings=findings(verdict, metrics),
        checks=(*results.checks, skipped),
    )
    html = render(found)
    said = headline_of(html)
    assert "Whether it is better than the base model was not measured" in said
    assert "Of 2 rules 1 met, 1 optional and not measured." in said
    assert "held-out loss (only 9 pictures); prompt following (8 captions)" in said
    assert html.count("not measured</span>") == 1  # the badge of the check
    assert "not measured: 8 captions" in summary.markdown(found)


def test_every_evaluation_of_the_training_is_listed(results: Results, render):
    html = render(results)
    assert "Every evaluation while training (32 held-out pictures)" in html
    assert "-4.0 % [-5.0, -3.0]" in html


def test_a_page_that_is_too_large_gets_smaller_pictures(results: Results, render, monkeypatch):
    large = render(results)
    asked = []
    monkeypatch.setattr(report, "MOST_BYTES", 1)
    real = report._render
    monkeypatch.setattr(report, "_render", lambda *a: asked.append(a[-1]) or real(*a))
    assert len(render(results)) <= len(large)
    assert asked == sorted(asked, reverse=True)
    assert len(asked) > 2


def test_a_picture_is_enlarged_by_a_link_and_closed_by_another(results: Results, render):
    elements = Elements(render(results)).found
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in elements if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "#picture-0-base" in links
    assert "#picture-0-base-place" in links


def test_a_phone_shows_wide_tables_row_by_row(results: Results, render):
    """Of the checks and of the pictures every cell names its column."""
    cells = [
        attrs.get("data-head") for tag, attrs in Elements(render(results)).found if tag == "td"
    ]
    assert cells[:5] == ["Status", "Metric", "Measured", "Rule", "Note"]
    assert cells[5:10] == [
        "Caption",
        "Base",
        "Kept (step 450)",
        "Last (step 900)",
        "Held-out picture",
    ]


@pytest.mark.parametrize("bins", [1, 2, 10])
def test_labels_of_noise_levels_do_not_overprint(results: Results, bins):
    from evaluate.evaluators import heldout

    levels = tuple(0.01 * i for i in range(bins))
    points = [replace(c, val_bins=levels, train_probe_bins=levels) for c in results.checkpoints]
    drawn = str(heldout.noise_levels(replace(results, checkpoints=tuple(points))))
    ends = {}
    for word in ("detail", "structure", "composition"):
        (style, x), *others = re.findall(
            rf'<text style="([^"]*)" x="([\d.]+)"[^>]*>{word}</text>', drawn
        )
        assert not others
        width = 6 * len(word)  # about, at 11 points
        shift = {"start": 0, "middle": width / 2, "end": width}
        anchor = re.search(r"text-anchor: (\w+)", style)
        start = float(x) - shift[anchor[1] if anchor else "start"]
        ends[word] = (start, start + width)
    assert ends["detail"][1] < ends["structure"][0]
    assert ends["structure"][1] < ends["composition"][0]


def test_the_section_says_whether_the_clip_chose_the_training_pairs(results: Results, render):
    def said(clip: str | None) -> str:
        provenance = results.provenance | {"curate": {"clip": clip}}
        return render(replace(results, provenance=provenance))

    assert "Measured with tiny. The same CLIP chose the training pairs" in said("tiny")
    assert "Measured with tiny; ViT-L-14 openai chose the training pairs." in said(
        "ViT-L-14 openai"
    )
    assert "If the same CLIP chose the training pairs" in said(None)


def test_the_scale_of_the_export_and_how_it_was_chosen_are_shown(results: Results, render):
    assert "Scale of the export" not in render(results)
    rows = (
        Measured(0.5, (-0.2, -0.22, -0.18), (0.08, 0.05, 0.11)),
        Measured(1.0, (-0.27, -0.3, -0.24), (0.4, 0.3, 0.5)),
    )
    choice = asdict(Choice(0.5, [0.5, 1], 0.15, "", "the largest at which", "digest", rows))
    found = json.loads(json.dumps(choice))  # as report.json has it
    html = render(replace(results, provenance=results.provenance | {"scale": found}))
    section = html[html.index("Exported and judged at 0.5 of what was trained") :][:3000]
    for said in ("0.5 (chosen)", "-20.0 % [-22.0, -18.0]", "+40.0 % [+30.0, +50.0]"):
        assert said in section.replace("−", "-")


def test_a_large_number_that_was_not_measured_says_so(results: Results, render):
    few = results.metrics | {"heldout_change": Metric(reason="only 9 pictures")}
    label = "held-out loss, kept against base"
    before, after = (render(replace(results, metrics=m)) for m in (results.metrics, few))
    tiles = [html[: html.index(label)][-60:] for html in (before, after)]
    assert "-6.1 %" in tiles[0]
    assert "not measured" in tiles[1]


def test_columns_merge_where_the_checkpoints_are_the_same(results: Results, render):
    verdict = replace(results.verdict, kept=900, best=900)
    assert "Kept = Last (step 900)" in render(replace(results, verdict=verdict))
    base = replace(results.verdict, kept=0, best=0)
    assert "Base = Kept" in render(replace(results, verdict=base))


def test_same_result_same_bytes(results: Results, render):
    assert render(results) == render(results)


def test_a_diverged_run_still_gets_its_page(results: Results, render):
    broken = replace(
        results.checkpoints[-1],
        val=Metric(reason="not a finite number"),
        train_probe=Metric(reason="not a finite number"),
        val_bins=(None,) * 3,
        train_probe_bins=(None,) * 3,
    )
    found = replace(results, checkpoints=(*results.checkpoints[:-1], broken), checks=())
    nothing = dict.fromkeys(("clip_base", "clip_kept", "clip_change"), Metric(reason="broke down"))
    html = render(replace(found, metrics=found.metrics | nothing))
    assert "Not measured: broke down." in html


def test_summary_is_short_and_inert(results: Results):
    checks = tuple(
        Check(f"rule {i}", "clip_base", "value > 0", f"1|2 `{HOSTILE}`", "passed", "")
        for i in range(12)
    )
    text = summary.markdown(replace(results, checks=checks))
    assert text.count("\n") <= 80
    assert "<img" not in text.replace(r"\<img", "")
    row = next(line for line in text.splitlines() if "alert" in line)
    assert row.replace(r"\|", "").count("|") == 5
    assert "| Held-out loss, kept against base | -6.1 % \\[-7.4, -4.9\\] | val | 128 | 96 |" in text


def test_junit_has_one_case_for_each_check(results: Results):
    statuses = ("passed", "failed", "undecided", "skipped", "warned")
    checks = tuple(Check(s, "clip_base", "value > 0", HOSTILE, s, "why") for s in statuses)
    suite = ElementTree.fromstring(summary.junit(replace(results, checks=checks)))
    assert suite.attrib["tests"] == "5"
    assert suite.attrib["failures"] == "1"
    assert suite.attrib["skipped"] == "2"
    outcomes = {
        case.attrib["name"]: [child.tag for child in case] for case in suite.iter("testcase")
    }
    assert outcomes == {
        "passed": [],
        "failed": ["failure"],
        "undecided": ["skipped"],
        "skipped": ["skipped"],
        "warned": ["system-out"],
    }
    failure = suite.find(".//failure")
    assert failure is not None
    assert HOSTILE in failure.attrib["message"]


def test_where_the_base_is_kept_nothing_it_did_is_a_cost(results: Results, render):
    """What the base does well is no news, and what compares a kept checkpoint is said once."""
    verdict = replace(results.verdict, kept=0, best=0)
    reasons = {"clip_change": "; nothing to compare", "clip_kept": ", there is nothing"}
    metrics = results.metrics | {n: Metric(reason=BASE_KEPT + r) for n, r in reasons.items()}
    found = replace(results, verdict=verdict, metrics=metrics, findings=findings(verdict, metrics))
    assert [finding.part for finding in found.findings] == ["result", "trend"]
    said = headline_of(render(found))
    assert "Cost None: what is kept is the base." in said
    assert said.count(BASE_KEPT) == 1
    assert f"comparisons of a checkpoint to keep ({BASE_KEPT})" in said


def test_a_command_in_the_summary_is_whole(results):
    advice = f"Look at the pictures {'first ' * 150}: python -m finetune.export mine step=75"
    found = replace(results, verdict=replace(results.verdict, advice=advice))
    assert "python -m finetune.export mine step=75" in summary.markdown(found)

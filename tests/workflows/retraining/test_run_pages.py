"""The page and the model card of one retraining say what was planted, and keep foreign text as text."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
import yaml

from curate import diff
from evaluate.results import save
from tests.evaluate.conftest import HOSTILE, results
from tests.workflows.retraining import planted, trainings
from tests.workflows.retraining.test_history import Elements, text_of
from workflows.retraining import history_page, lineage, model_card, run_report, summary
from workflows.retraining.series import Series

__all__ = ["results"]


@pytest.fixture
def series(tmp_path, results):
    """Two retrainings, of which the second was compared with the first; all stages have left their files."""
    found = Series(tmp_path / "runs", "mine")
    found.folder.mkdir(parents=True)
    for number in (1, 2):
        record = planted.retrain(found, number)
        run_dir = found.run_dir(record.run)
        sides = {
            f"p{n:02d}": "val" if n % 6 == 0 else "train" for n in range(14 + 3 * (number - 1))
        }
        trainings.curate(run_dir, sides, dropped=("q01", "q02"))
        trainings.train(run_dir)
        found_ = replace(
            results, run=record.run, provenance={"finetune": {"method": {"name": "lora"}}}
        )
        save(found_, run_dir / "evaluate" / "report.json")
    return found


@pytest.fixture
def record(series):
    return series.records()[1]


def test_the_page_says_what_became_of_it_and_why_it_ran(series, record):
    record = replace(record, export="finetune/export")
    said = text_of(run_report.write(series, record).read_text())
    assert "Retraining 2 of mine, 2026-01-11 03:17 to 2026-01-11 03:57 UTC" in said
    assert f"Result ✓ promoted {planted.ENDS['promoted']}" in html.unescape(said)
    assert "Compared with mine-0001, which was in use, on the same held-out pictures" in said
    assert "Why it ran 300 pictures are new; train: optim.lr: 1e-4, now 1e-5." in said
    assert "In use This run, in the place of mine-0001, when this page was written." in said
    assert "Settings train: optim.lr 1e-4 1e-5" in said
    assert "-6.1 % held-out loss against the base" in said
    assert "40 min of all steps" in said
    assert "Overfitting. Since step 900 ..." in said
    assert "Gate ✓ passed Status" in said
    assert planted.REVISION in said
    assert "/mine-0002/finetune/export" in said


def test_its_links_lead_to_files_that_are_there(series, record):
    for write in (lineage.write, model_card.write, run_report.write):
        write(series, record)
    path = run_report.write(series, record)
    (series.folder / "history.html").write_text("")  # written last
    links = [a["href"] for tag, a in Elements(path.read_text()).found if tag == "a"]
    files = {link.partition("#")[0] for link in links} - {""}
    assert files == {
        "curate/report.html",
        "evaluate/report.html",
        "MODEL_CARD.md",
        "lineage.json",
        "../mine-0001/retrain.html",
        "../mine-series/history.html",
    }
    assert all((path.parent / link).is_file() for link in files)


def test_what_changed_in_the_data_is_embedded(series, record):
    assert "Of 28 pairs 26 are kept." in text_of(run_report.render(series, record))
    folders = [series.run_dir(run) / "curate" for run in ("mine-0001", record.run)]
    diff.write(*folders, say=lambda _: None)
    shown = run_report.render(series, record)
    assert "Data: what changed" in text_of(shown)
    assert "+5 pairs (all kept)" in text_of(shown)  # three pictures, two of which have two captions
    assert 'href="diff/mine-0001/report.html"' in shown


def test_of_several_data_sets_each_is_told(tmp_path, results):
    found = Series(tmp_path / "runs", "mine")
    found.folder.mkdir(parents=True)
    weights = {"own": 1.0, "photos": 0.3}
    for number in (1, 2):
        record = planted.retrain(
            found, number, datasets=weights if number == 2 else {"photos": 2.0}
        )
        for each in record.curations(found.root):
            sides = {
                f"{each.dataset}{n:02d}": "train" if n % 6 else "val" for n in range(11 + number)
            }
            trainings.curate(each.run_dir, sides)
            (each.folder / "report.html").write_text("")
        runs = {f"{record.run}-{name}": weight for name, weight in record.datasets.items()}
        trainings.train(found.run_dir(record.run), runs=runs)
        judged = replace(
            results, run=record.run, provenance={"finetune": {"method": {"name": "lora"}}}
        )
        save(judged, found.run_dir(record.run) / "evaluate" / "report.json")
    record = replace(record, summary=summary.of(found.run_dir(record.run)))
    folders = [found.root / f"mine-000{n}-photos" / "curate" for n in (1, 2)]
    diff.write(*folders, say=lambda _: None)
    for write in (lineage.write, model_card.write, run_report.write):
        write(found, record)
    path = found.run_dir(record.run) / "retrain.html"
    said = text_of(path.read_text())
    assert "Data sets: own (weight 1), photos (weight 0.3)." in said  # own was not compared
    assert "Data of photos: what changed" in said
    (found.folder / "history.html").write_text("")  # written last
    links = {a["href"] for tag, a in Elements(path.read_text()).found if tag == "a"}
    assert {f"../mine-0002-{name}/curate/report.html" for name in weights} < links
    assert "../mine-0002-photos/diff/mine-0001-photos/report.html" in links
    anchors = [a["id"] for _, a in Elements(path.read_text()).found if "id" in a]
    assert len(anchors) == len({*anchors})
    assert all(
        (path.parent / link).is_file()
        for link in links
        if not link.startswith("#") and "#" not in link
    )
    _, body = card_of(found, record)
    assert "`mine-0002-own`, drawn with the weight 1: of 20 pairs" in body
    assert "`mine-0002-photos`, drawn with the weight 0.3: of 20 pairs" in body
    assert "`python -m curate.credits mine-0002-photos`" in body
    history = history_page.write(found).read_text()
    assert 'href="../mine-0002-photos/curate/report.html"' in history
    assert "data of photos" in text_of(history)


def test_a_retraining_that_was_given_up_has_a_page(series, record):
    import shutil

    shutil.rmtree(series.run_dir(record.run) / "evaluate")
    shutil.rmtree(series.run_dir(record.run) / "curate")
    given_up = replace(record, outcome="abandoned", sentence="Settings changed.", steps={}, kept=-1)
    said = text_of(run_report.render(series, given_up))
    assert "abandoned Settings changed." in said
    assert "In use mine-0002, when this page was written." in said
    assert "Evaluation" not in said


def test_text_of_the_run_stays_text(series, record):
    hostile = planted.Change("data", HOSTILE, HOSTILE, HOSTILE)
    shown = run_report.render(series, replace(record, sentence=HOSTILE, changes=(hostile,)))
    assert not {"script", "img"} & {tag for tag, _ in Elements(shown).found}
    assert html.escape(HOSTILE, quote=False) in shown


def test_many_changes_are_counted(series, record):
    changes = tuple(planted.Change("setting", f"train: key{n}", "1", "2") for n in range(100))
    said = text_of(run_report.render(series, replace(record, changes=changes)))
    assert (
        "train: key0: 1, now 2; train: key1: 1, now 2; train: key2: 1, now 2; and 97 more." in said
    )
    assert "40 more are in retrain.json." in said


# The model card


def card_of(series, record):
    text = model_card.write(series, record).read_text()
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_header_is_the_hubs(series, record):
    header, _ = card_of(series, record)
    assert header == {
        "license": "other",  # half of the pictures state CC BY 4.0, the others none
        "license_name": "see-training-data",
        "license_link": "#training-data",
        "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "darkroom"],
    }


def test_the_card_says_what_has_to_be_set_to_draw(series, record):
    path = series.run_dir(record.run) / "finetune" / "config.yaml"
    path.write_text("model:\n  path: a/b\n  clip_skip: 2\nmethod:\n  name: full\n")
    _, body = card_of(series, replace(record, export="finetune/export"))
    assert "Clip skip to 2" in body


def test_a_base_in_a_folder_is_not_called_a_repository(series, record):
    path = series.run_dir(record.run) / "finetune" / "config.yaml"
    path.write_text("model:\n  path: finetune/starter_ldm\nmethod:\n  name: full\n")
    header, body = card_of(series, replace(record, export="finetune/export"))
    assert "base_model" not in header
    assert "lora" not in header["tags"]
    assert "Fine-tuned from `finetune/starter_ldm` with method=full" in body
    assert "mine-0002/finetune/export')" in body


def test_the_card_tells_data_judgement_and_limits(series, record):
    _, body = card_of(series, replace(record, export="finetune/export", start_from="mine-0001"))
    sections = re.findall(r"^## (.*)", body, re.MULTILINE)
    assert sections == [
        "How to load",
        "Training data",
        "Training",
        "Evaluation",
        "Limits",
        "Gate",
        "Code and versions",
    ]
    assert "It began with the export of mine-0001, not with the base itself." in body
    assert "/finetune/export')" in body
    assert "| clip_similarity | 2 | 26 |" in body
    assert "| CC BY 4.0 | 8 |" in body
    assert "Pictures by: Ann \\*A\\*." in body
    assert "`python -m curate.credits mine-0002`" in body
    assert "rank: 4" in body
    assert "| Held-out loss, kept against base | -6.1 % \\[-7.4, -4.9\\] | val | 96 |" in body
    assert "**passed**" in body
    assert "the split 'test' is empty" in body  # not measured
    assert f"| revision of the code | {planted.REVISION} |" in body


def test_no_checkpoint_no_code_to_load_it(series, record):
    _, body = card_of(series, replace(record, export="", kept=0))
    assert "There is nothing to load" in body
    assert "load_lora_weights" not in body


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("CC BY-SA 4.0, OpenMoji (openmoji.org)", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/3.0/", "cc-by-nc-nd-3.0"),
        ("cc-by-2.0", "cc-by-2.0"),
        ("CC BY-SA 2.0", ""),  # which the hub has no name for
        ("CC BY", ""),  # of which version is not known
        ("CC0", "cc0-1.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("Mitchell's own", ""),
        ("All rights reserved", ""),
    ],
)
def test_licences_by_their_names_at_the_hub(said, name):
    assert model_card.identifier(said) == name


def test_one_licence_for_all_or_other_or_unknown():
    assert model_card.licence_of(["CC BY 4.0", "cc-by-4.0"]) == "cc-by-4.0"
    assert model_card.licence_of(["CC BY 4.0", "CC BY-SA 4.0"]) == "other"
    assert model_card.licence_of(["All rights reserved"]) == "other"
    assert model_card.licence_of(["not stated"]) == "unknown"

"""The data sets of a retraining in an experiment's file."""

import pytest

from curate.run import datasets, experiment
from curate.run.schema import UserError

FILE = """
curate: {clip: starter, dataset: folder}
retrain:
  keep: 7
  datasets:
    own: {curate: {dataset.root: ~/own}}
    photos: {weight: 0.3, curate: {dataset: {root: "a, b"}, split.val: 0.2}}
  datasets.more.weight: 2
"""


@pytest.fixture
def mine(tmp_path):
    def written(text=FILE):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return written


def test_each_has_a_section_and_all_have_weights(mine, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = experiment.read(mine())
    assert found["curate own"] == ["dataset.root='/home/me/own'"]
    assert found["curate photos"] == ["dataset.root='a, b'", "split.val=0.2"]
    assert found["retrain"] == [
        "keep=7",
        "++datasets.photos.weight=0.3",
        "++datasets.more.weight=2",
        "++datasets.own.weight=1.0",
    ]
    assert found["curate more"] == []


def test_every_command_checks_them(mine):
    wrong = FILE.replace("split.val: 0.2", "split.val: 2")
    with pytest.raises(
        UserError, match=r"section retrain, curate of the data set photos: split\.val=2"
    ):
        experiment.apply([f"experiment={mine(wrong)}"], "curate")
    assert experiment.apply([f"experiment={mine()}"], "curate") == [
        "clip='starter'",
        "dataset='folder'",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("datasets: {my photos: {weight: 1}}", "'my photos' cannot be a data set's name"),
        ("datasets: {a/b: {weight: 1}}", "'a/b' cannot be a data set's name"),
        ("datasets: {.a: {weight: 1}}", ""),
        ("datasets: {2024: {weight: 1}}", "Type datasets.set_2024"),
        ("datasets: {photos-2024: {weight: 1}}", "Type datasets.photos_2024"),
        ("datasets: {2024-photos: {curate: {dataset: folder}}}", "Type datasets.2024_photos"),
        ("datasets: {series: {weight: 1}}", "Type datasets.set_series"),
        ("datasets: {photos: {weight: 0}}", "datasets.photos.weight=0 is out of range"),
        ("datasets: {photos: {weight: -1}}", "datasets.photos.weight=-1 is out of range"),
        ("datasets: {photos: {weight: .inf}}", "datasets.photos.weight=inf is out of range"),
        ("datasets: {photos: {weight: .nan}}", "datasets.photos.weight=nan is out of range"),
        ("datasets: {photos: {weight: true}}", "datasets.photos.weight=True is out of range"),
        ("datasets: {photos: {weight: lots}}", "datasets.photos.weight=lots is out of range"),
        (
            "datasets: {photos: 0.3}",
            "datasets.photos=0.3 is no data set; type datasets.photos.weight",
        ),
        ("datasets: {photos: {wieght: 1}}", "datasets.photos.wieght is no key of a data set"),
        (
            "datasets: {photos: {root: x}}",
            "datasets.photos.root is no key of a data set; accepted: datasets.",
        ),
        (
            "datasets: {photos: {curate: {datset: folder}}}",
            "curate of the data set photos: there is no",
        ),
        (
            "datasets: [photos]",
            "datasets: ['photos'] names no data sets; write datasets: {photos: {weight",
        ),
    ],
)
def test_mistakes_are_named(mine, text, says):
    path = mine(f"retrain: {{{text}}}")
    with pytest.raises(UserError) as refused:
        experiment.apply([f"experiment={path}"], "retrain")
    assert says in str(refused.value)
    assert "mine.yaml" in str(refused.value)


def test_no_data_sets_are_as_none_listed(mine):
    for text in ("datasets: {}", "datasets: null"):
        assert experiment.read(mine(f"retrain: {{keep: 2, {text}}}")) == {"retrain": ["keep=2"]}


@pytest.mark.parametrize("name", ["photos", "a", "own-2", "x_2024", "123", "serie"])
def test_names_that_lead_back_to_their_run(name):
    datasets.check_name(name)
    for run in ("mine-0003", "mine-2024-0003", "a-b-12345"):
        assert datasets.retraining_of(datasets.run_of(run, name)) == (run, name)

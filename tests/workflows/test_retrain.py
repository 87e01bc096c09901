"""The command itself: settings from an experiment, exit codes, the last line of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run import experiment, provenance
from curate.run.locks import locked
from tests.workflows.retraining import fake_mlflow
from tests.workflows.retraining.conftest import Commands
from workflows import retrain
from workflows.retraining import commands, comparison, inputs, steps, tries, unchanged
from workflows.retraining.input_files import Root
from workflows.retraining.record import Record

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
curate: {run.name: mine, dataset: folder, dataset.root: pictures, clip: starter}
train: {model: starter, optim.lr: 1e-3}
evaluate: {grid.items: 3}
retrain: {keep: 2, notify.command: "cat > told; false", notify.attempts: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in "abcd":
        (tmp_path / "pictures" / f"{name}.png").write_text(name)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def fake(folder, monkeypatch):
    found = Commands(folder / "runs", folder / "pictures")
    monkeypatch.setattr(steps, "run", found.run)
    monkeypatch.setattr(comparison, "examine_pictures", lambda promoted, run_dir: "")
    monkeypatch.setattr(provenance, "_revision", lambda: "1234")
    code = Root("code", str(folder / "code"), "the code", (".py",))
    monkeypatch.setattr(inputs, "_code", lambda: iter([code]))
    yield found
    commands.remember([], {})


@pytest.fixture
def run(fake, monkeypatch, capsys):
    """Start as typed, in this process; returns the exit code, what JSON it prints last, and its errors."""

    def start(*arguments):
        monkeypatch.setattr("sys.argv", ["retrain", *arguments])
        code = 0
        try:
            retrain.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr()
        lines = said.out.splitlines()
        found = json.loads(lines[-1]) if "--json" in arguments and lines else None
        return code, found, said.err

    return start


def test_a_series_from_an_experiment(run, fake, folder, monkeypatch):
    """Promoted, nothing to do by the quick look, settings that are typed, rejected, undecided, failed, busy."""
    mine = ("experiment=mine.yaml", "--json")
    code, said, err = run(*mine)
    assert (code, said["outcome"], said["current"]) == (0, "promoted", "mine-0001")
    assert "warning: notify.command was not delivered in 1 tries: exit code 1" in err
    assert json.loads((folder / "told").read_bytes()) == said
    (folder / "told").unlink()
    assert {*fake.lines[0]} >= {
        f"experiment={folder}/runs/mine-0001/experiment.yaml",
        "run.root=runs",
        "run.name=mine-0001",
    }

    with monkeypatch.context() as patch:
        patch.setattr(retrain, "start", None)  # the quick look is enough
        assert run(*mine)[1]["outcome"] == "nothing_to_do"
        assert run("experiment=mine.yaml")[0] == 0
    (folder / "mine.yaml").write_text(f"# a comment\n{EXPERIMENT}")
    assert unchanged.look(mine) is None
    assert run(*mine)[1]["outcome"] == "nothing_to_do"
    assert not (folder / "told").exists()

    code, said, _ = run(*mine, "train.optim.lr=0.01", "--why")
    assert (code, said["outcome"], said["run"]) == (0, "would_start", None)
    assert said["changes"] == ["train: optim.lr: 0.001, now 0.01"]
    assert len(fake.ran) == 3

    fake.gate = "failed"
    code, said, _ = run(*mine, "train.optim.lr=0.01")
    assert (code, said["outcome"], said["run"], said["current"]) == (
        0,
        "rejected",
        "mine-0002",
        "mine-0001",
    )
    assert "optim.lr=0.01" in [line for line in fake.lines if "train.py" in line[1]][-1]
    assert run(*mine, "train.optim.lr=0.02", "fail_on_reject=true")[0] == 1
    assert sorted(path.name for path in (folder / "runs").iterdir()) == [
        "mine-0001", "mine-0002", "mine-0003", "mine-series",
    ]  # fmt: skip

    fake.gate = "undecided"
    assert run(*mine, "train.optim.lr=0.03")[0] == 3
    fake.gate, fake.ends["finetune"] = "passed", 1
    code, said, err = run(*mine)
    assert (code, said["outcome"]) == (70, "failed")
    assert "error: finetune of mine-0005 ended with exit code 1; what it said is above" in err
    assert json.loads((folder / "told").read_bytes()) == said
    fake.ends["finetune"] = 2
    assert run(*mine)[0] == 2
    fake.ends["finetune"] = 75
    code, said, err = run(*mine)
    assert (code, said["outcome"]) == (75, "busy")
    with locked(folder / "runs" / "mine-series"):
        code, said, err = run(*mine)
    assert (code, said["outcome"]) == (75, "busy")
    assert f"process {os.getpid()} " in err
    fake.ends.clear()

    assert run(*mine)[1]["current"] == "mine-0005"


@pytest.mark.slow
def test_an_experiment_that_is_edited_meanwhile_is_the_next_run_s(run, fake, folder):
    """All steps of a run read one state of it; the next start begins with the new one."""
    seen, path = [], folder / "mine.yaml"

    def edit():
        path.write_text(EXPERIMENT.replace("items: 3", "items: 5").replace("1e-3", "1e-2"))

    def read(name):
        given = dict(text.split("=", 1) for text in fake.lines[-1] if "=" in text)
        seen.append((name, experiment.read(Path(given["experiment"]))))

    fake.before["curate"] = edit
    for name in ("finetune", "evaluate"):
        fake.before[name] = lambda name=name: read(name)
    assert run("experiment=mine.yaml", "--json")[1]["run"] == "mine-0001"
    assert [name for name, _ in seen] == ["finetune", "evaluate"]
    assert "optim.lr=0.001" in seen[0][1]["train"]
    assert "grid.items=3" in seen[1][1]["evaluate"]
    _, said, _ = run("experiment=mine.yaml", "--json", "--why")
    assert said["changes"] == ["evaluate: grid.items: 3, now 5", "train: optim.lr: 0.001, now 0.01"]


@pytest.mark.slow
def test_a_killed_run_of_an_experiment_that_changed_is_given_up_and_else_gone_on_with(
    run, fake, folder
):
    def interrupted():
        raise KeyboardInterrupt

    def start():
        return run("experiment=mine.yaml", "--json")[1]

    kept = folder / "runs" / "mine-0001" / "experiment.yaml"
    fake.before["finetune"] = interrupted
    start()
    kept.unlink()  # as of a run that an earlier version began
    (folder / "mine.yaml").write_text(f"# a comment\n{EXPERIMENT}")
    start()
    assert experiment.read(kept)["train"] == ["model='starter'", "optim.lr=0.001"]
    assert fake.ran.count("curate mine-0001") == 1
    (folder / "mine.yaml").write_text(EXPERIMENT.replace("1e-3", "1e-2"))
    fake.before.clear()
    assert start()["run"] == "mine-0002"
    assert Record.load(kept.parent).outcome == "abandoned"


REFUSED = {
    "a folder that is not there": ("curate.dataset.root=pictores", "nothing at dataset.root=pictores"),
    "a folder without pictures": ("curate.dataset.root=empty", "empty holds no images"),
    "another reader": ("curate.dataset=hub", "settings of curate: there is no key dataset.root"),
    "a base model": ("train.model.path=no/such/model", "model.path=no/such/model does not exist"),
    "a base model of the hub": ("train.model=sd15", "the Hugging Face hub cannot be reached"),
    "a CLIP": ("curate.clip.name=local-dir:nope", "holds no open_clip_config.json"),
    "weights of a CLIP": ("curate.clip=vit_b32_openai", "settings of curate: clip.name=ViT-B-32-quickgelu"),
    "a CLIP to judge with": ("evaluate.clip=vit_b32_laion2b", "settings of evaluate: clip.name=ViT-B-32"),
    "a precision": ("train.optim.mixed_precision=fp16", "type optim.mixed_precision=bf16 or no"),
    "a precision to judge in": ("evaluate.precision=fp16", "type precision=bf16 or precision=no"),
    "a device": ("curate.clip.device=mps", "clip.device=mps is not there"),
    "a list of prompts": ("evaluate.retention.prompts=nope.txt", "retention.prompts=nope.txt is not there"),
    "a run of the base": ("evaluate.retention.run=nope", "nope/curate holds no finished curation"),
}  # fmt: skip


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("what", REFUSED)
def test_what_a_command_would_refuse_is_refused_before_a_run_is_begun(
    run, fake, folder, monkeypatch, what
):
    monkeypatch.setattr("curate.run.hub.is_reachable", lambda: False)
    monkeypatch.setattr("curate.run.devices.no_cuda", lambda: "there is none")
    monkeypatch.setattr("curate.run.devices.sys.platform", "linux")
    monkeypatch.setattr("curate.clip.availability._anything_cached", lambda: False)
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("no picture")
    typed, says = REFUSED[what]
    for why in ([], ["--why"]):
        code, _, err = run("experiment=mine.yaml", typed, *why)
        assert says in err
        assert (code, fake.ran) == (2, [])
        assert not (folder / "runs").exists()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("why", [[], ["--why"]])
def test_a_folder_that_is_gone_begins_no_run_of_a_series_either(run, fake, folder, why):
    assert run("experiment=mine.yaml")[0] == 0
    (folder / "pictures").rename(folder / "away")
    before = sorted((folder / "runs").rglob("*"))
    code, _, err = run("experiment=mine.yaml", *why)
    assert "nothing at dataset.root=pictures" in err
    assert (code, len(fake.ran)) == (2, 3)
    assert sorted((folder / "runs").rglob("*")) == before
    (folder / "away").rename(folder / "pictures")
    assert run("experiment=mine.yaml", "--json")[1]["outcome"] == "nothing_to_do"


def test_a_place_of_data_is_retyped_as_the_retraining_takes_it(run, folder):
    _, _, err = run("experiment=mine.yaml", "train.optim.lr=1", "curate.dataset.root=x", "--why")
    line = "python -m workflows.retrain experiment=mine.yaml train.optim.lr=1 curate.dataset.root=FOLDER"
    assert err.endswith(f"or type where it is: {line}\n")


def test_only_what_is_still_to_be_done_is_checked(run, fake, folder):
    (folder / "pictures").rename(folder / "away")
    assert run("experiment=mine.yaml", "until=curate")[0] == 2
    (folder / "away").rename(folder / "pictures")
    mine = ("experiment=mine.yaml", "train.model.path=no/such/model")
    assert run(*mine, "until=curate")[0] == 0
    _, _, err = run(*mine)
    assert "model.path=no/such/model does not exist" in err
    mine = ("experiment=mine.yaml", "train.optim.lr=0.1")
    assert run(*mine, "until=curate", "--json")[1]["run"] == "mine-0002"
    (folder / "pictures").rename(folder / "away")
    assert run(*mine, "--json")[1]["run"] == "mine-0002"  # which needs the pictures no more


def test_a_run_is_not_given_up_for_settings_that_are_refused(run, fake, folder):
    assert run("experiment=mine.yaml", "until=curate")[0] == 0
    assert run("experiment=mine.yaml", "train.model.path=no/such/model")[0] == 2
    assert run("experiment=mine.yaml", "--json")[1]["run"] == "mine-0001"
    assert fake.ran.count("curate mine-0001") == 1


def test_an_export_to_start_with_that_does_not_fit_is_refused_first(run, fake, folder):
    assert run("experiment=mine.yaml")[0] == 0
    mine = ("experiment=mine.yaml", "start_from=promoted")
    code, _, err = run(*mine)
    assert "mine-0001/finetune/export is no export of method=" in err
    assert (code, len(fake.ran)) == (2, 3)


UNREAD = (
    "Thumbs.db",
    "desktop.ini",
    ".DS_Store",
    "notes.txt",
    "deep/readme.txt",
    "e.caption",
    "x.psd",
)


@pytest.mark.slow
def test_files_that_no_reader_opens_start_nothing(run, fake, folder):
    """Neither by the full look nor by the quick one, which knows them from then on."""
    (folder / "pictures" / "a.txt").write_text("a picture")
    mine = ("experiment=mine.yaml", "--json")
    assert run(*mine)[1]["outcome"] == "promoted"
    for name in UNREAD:
        (folder / "pictures" / name).parent.mkdir(exist_ok=True)
        (folder / "pictures" / name).write_text("1")
    assert unchanged.look(mine) is None
    assert run(*mine, "--why")[1]["outcome"] == "nothing_to_do"
    assert run(*mine)[1]["outcome"] == "nothing_to_do"
    assert unchanged.look(mine) is not None
    (folder / "pictures" / "Thumbs.db").unlink()
    (folder / "pictures" / "notes.txt").write_text("2")
    assert run(*mine)[1]["outcome"] == "nothing_to_do"
    # a caption counts as soon as it has its picture
    (folder / "pictures" / "e.png").write_text("e")
    said = run(*mine, "--why")[1]
    assert said["changes"] == [f"{folder}/pictures/e.{end}: new" for end in ("caption", "png")]
    assert run(*mine)[1]["run"] == "mine-0002"
    (folder / "pictures" / "e.caption").write_text("3")
    assert run(*mine, "--why")[1]["changes"] == [f"{folder}/pictures/e.caption: changed"]


def test_a_signal_ends_it_with_130_and_it_goes_on(run, fake):
    def interrupted():
        raise KeyboardInterrupt("SIGTERM")

    fake.before["finetune"] = interrupted
    code, said, err = run("experiment=mine.yaml", "--json")
    assert (code, said["outcome"], said["current"]) == (130, "interrupted", None)
    assert "interrupted: SIGTERM; the same command again resumes" in err
    fake.before.clear()
    assert run("experiment=mine.yaml", "--json")[1]["current"] == "mine-0001"
    assert fake.ran.count("curate mine-0001") == 1


def test_messages_keep_their_secrets(run, folder):
    text = EXPERIMENT.replace("cat > told; false", "true # geheim")
    (folder / "mine.yaml").write_text(text)
    run("experiment=mine.yaml", "notify.url=http://127.0.0.1:9/geheim", "notify.timeout_s=1")
    for path in (folder / "runs").rglob("*"):
        assert path.is_dir() or b"geheim" not in path.read_bytes(), path
    assert Record.load(folder / "runs" / "mine-0001").arguments[1] == "notify.url=***"


@pytest.mark.slow
def test_a_registry_follows_also_where_nothing_else_is_to_do(run, folder, monkeypatch):
    """The quick look is no reason to leave it behind; the login that was typed lies in no file."""
    monkeypatch.setattr(tries, "PAUSE_S", 0.001)
    with fake_mlflow.served() as server:
        server.status = 503
        server.login = "me:geheim"
        url = server.url.replace("//", "//me:geheim@")
        mine = ("experiment=mine.yaml", f"registry.mlflow.url={url}", "registry.mlflow.model=ours")
        code, _, err = run(*mine)
        assert (code, server.champion("ours")) == (0, None)
        assert "does not show mine-0001 as ours@champion: HTTP 503" in err
        server.status = 0
        assert run(*mine, "--json")[1]["outcome"] == "nothing_to_do"
        assert server.champion("ours") == "mine-0001"
        asked = len(server.asked)
        with monkeypatch.context() as patch:
            patch.setattr(retrain, "start", None)  # the quick look is enough
            assert run(*mine)[0] == 0
        assert len(server.asked) == asked
    for path in (folder / "runs").rglob("*"):
        assert path.is_dir() or b"geheim" not in path.read_bytes(), path


def test_a_folder_of_runs_elsewhere_of_any_name(run, folder):
    where = "run.root=~odd/[a] (b), c"
    code, said, _ = run("experiment=mine.yaml", where, "run.name=it's", "--json")
    assert (code, said["current"]) == (0, "it's-0001")
    assert (folder / "~odd" / "[a] (b), c" / "it's-series" / "current.json").is_file()
    assert (
        run("experiment=mine.yaml", where, "run.name=it's", "--json")[1]["outcome"]
        == "nothing_to_do"
    )


SEVERAL = EXPERIMENT.replace(" dataset.root: pictures,", "").replace(
    "retrain: {",
    "retrain: {datasets: {own: {curate: {dataset.root: pictures}}, "
    "photos: {weight: 0.3, curate: {dataset.root: photos}}}, ",
)


def test_several_data_sets_from_an_experiment(run, fake, folder, monkeypatch):
    """Promoted, nothing to do by the quick look, a weight that is typed, a picture that is new."""
    (folder / "mine.yaml").write_text(SEVERAL)
    (folder / "photos").mkdir()
    (folder / "photos" / "p.png").write_text("p")
    mine = ("experiment=mine.yaml", "--json")
    assert run(*mine)[1]["current"] == "mine-0001"
    assert fake.ran[:2] == ["curate mine-0001-own", "curate mine-0001-photos"]
    kept = folder / "runs" / "mine-0001-photos" / "experiment.yaml"
    own = {"dataset.root='photos'", "run.name=mine-0001-photos", f"experiment={kept}"}
    assert own < {*fake.lines[1]}
    assert experiment.read(kept)["train"] == ["model='starter'", "optim.lr=0.001"]
    assert "data.runs={mine-0001-own: 1.0, mine-0001-photos: 0.3}" in fake.lines[2]
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "start", None)  # the quick look is enough
        assert run(*mine)[1]["outcome"] == "nothing_to_do"
    typed = (*mine, "datasets.photos.weight=0.5", "datasets.photos.curate.split.val=0.1", "--why")
    assert run(*typed)[1]["changes"] == [
        "curate photos: split.val: 0.05, now 0.1",
        "datasets.photos.weight: 0.3, now 0.5",
    ]
    (folder / "photos" / "q.png").write_text("q")
    assert unchanged.look(mine) is None
    code, said, _ = run(*mine)
    assert (code, said["current"]) == (0, "mine-0002")
    assert said["changes"] == [f"photos: {folder}/photos/q.png: new"]
    assert run(*mine)[1]["outcome"] == "nothing_to_do"


@pytest.fixture
def of_two(folder):
    (folder / "mine.yaml").write_text(SEVERAL)
    (folder / "photos").mkdir()
    (folder / "photos" / "p.png").write_text("p")
    return folder


@pytest.mark.slow
def test_files_that_no_reader_opens_start_nothing_in_any_data_set(run, of_two):
    assert run("experiment=mine.yaml")[0] == 0
    for name in ("pictures", "photos"):
        (of_two / name / "Thumbs.db").write_text("1")
    assert run("experiment=mine.yaml", "--json")[1]["outcome"] == "nothing_to_do"


OF_ONE = {
    "a folder that is not there": ("datasets.photos.curate.dataset.root=nope", "settings of curate photos: dataset="),
    "a device": ("datasets.photos.curate.clip.device=mps", "settings of curate photos: clip.device=mps is not there"),
    "a CLIP to judge with": ("evaluate.clip=vit_b32_laion2b", "settings of evaluate: clip.name=ViT-B-32"),
    "a base model": ("train.model.path=no/such/model", "model.path=no/such/model does not exist"),
}  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if what == "a device" else pytest.mark.slow) for what in OF_ONE],
)
def test_what_the_curation_of_one_data_set_would_refuse_is_refused_first(
    run, fake, of_two, monkeypatch, what
):
    monkeypatch.setattr("curate.run.hub.is_reachable", lambda: False)
    monkeypatch.setattr("curate.run.devices.sys.platform", "linux")
    monkeypatch.setattr("curate.clip.availability._anything_cached", lambda: False)
    typed, says = OF_ONE[what]
    for why in ([], ["--why"]):
        code, _, err = run("experiment=mine.yaml", typed, *why)
        assert says in err
        assert (code, fake.ran) == (2, [])
        assert not (of_two / "runs").exists()


def test_a_place_of_one_data_set_is_retyped_as_that_one_takes_it(run, of_two):
    (of_two / "photos").rename(of_two / "away")
    mine = ("experiment=mine.yaml", "--why")
    _, _, err = run(*mine)
    *_, line = err.split()
    assert line == "datasets.photos.curate.dataset.root=FOLDER"
    assert run(*mine, line.replace("FOLDER", "away"))[0] == 0


@pytest.mark.slow
def test_a_data_set_that_is_curated_is_needed_no_more(run, fake, of_two):
    def interrupted():
        if fake.ran[-1].endswith("photos"):
            raise KeyboardInterrupt

    fake.before["curate"] = interrupted
    assert run("experiment=mine.yaml")[0] == 130
    fake.before.clear()
    (of_two / "photos").rename(of_two / "away")
    _, _, err = run("experiment=mine.yaml")
    assert "settings of curate photos: " in err
    (of_two / "away").rename(of_two / "photos")
    (of_two / "pictures").rename(of_two / "away")
    assert run("experiment=mine.yaml", "--json")[1]["run"] == "mine-0001"
    assert fake.ran.count("curate mine-0001-own") == 1


@pytest.mark.quick_cases(10)
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment=mine.yaml", "datasets.photos.weight=0"], "weight=0 is out of range"),
        (["experiment=mine.yaml", "datasets.photos-2024.weight=1"], "Type datasets.photos_2024"),
        (
            ["experiment=mine.yaml", "datasets.photos.curate.split.val=0"],
            "there is no data set photos",
        ),
        (["experiment=mine.yaml", "keep=0"], "keep=0 is out of range; accepted: null or > 0"),
        (["experiment=mine.yaml", "start_from=last"], "accepted: base, promoted"),
        (["experiment=mine.yaml", "until=export"], "accepted: curate, finetune, evaluate, promote"),
        (["experiment=mine.yaml", "optim.lr=1"], "type train.optim.lr=1"),
        (["experiment=mine.yaml", "optm.lr=1"], "did you mean train.optim.lr=1"),
        (["experiment=mine.yaml", "dataset.root=x"], "type curate.dataset.root=x"),
        (["experiment=mine.yaml", "clip=starter"], "curate.clip=starter or evaluate.clip=starter"),
        (["experiment=mine.yaml", "--optim.lr", "1"], "Type train.optim.lr=1"),
        (["experiment=mine.yaml", "--whay"], "--whay is no option; type --why"),
        (["experiment=mine.yaml", "--jsn"], "--jsn is no option; type --json"),
        (["mine.yaml"], "'mine.yaml' has no key; type experiment=mine.yaml"),
        (["demo"], "'demo' has no key; type experiment=demo"),
        (["experiment=mine.yaml", "train.optim.lr=x"], "settings of train: optim.lr must be"),
        (["experiment=mine.yaml", "train.samples=3"], "type train.train.samples=3"),
        (["experiment=mine.yaml", "registry.mlflow.url=h:5000"], "type registry.mlflow.url=http"),
        (["experiment=mine.yaml", "registry.mlflow.model=x"], "or set MLFLOW_TRACKING_URI"),
        (["experiment=mine.yaml", "registry.url=x"], "registry.mlflow.url"),
        (["experiment=mine.yaml", "run.name=a/b"], "Type run.root=a run.name=b"),
        (["experiment=mine.yaml", "launch=torchrum -n 2"], "there is no program torchrum"),
        (["-m", "experiment=mine.yaml", "keep=1,2"], "-m does not work with a retraining"),
        (["keep=2"], "what is to be retrained? Type experiment=FILE.yaml"),
    ],
)
def test_mistakes_are_answered_before_anything_is_made(run, fake, folder, arguments, says):
    code, _, err = run(*arguments)
    assert says in err
    assert code == 2
    assert fake.ran == []
    assert not (folder / "runs").exists()


def test_nothing_heavy_before_the_settings_are_right(folder):
    code = (
        "import sys; sys.argv[1:] = ['experiment=mine.yaml', 'keep=0']\n"
        "from workflows import retrain\n"
        "try: retrain.main()\n"
        "finally: print({'torch', 'diffusers', 'pandas', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.strip() == "set()", done.stderr

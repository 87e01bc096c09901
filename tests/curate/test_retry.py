"""``python -m curate.retry``: asks again for what may pass, and says what has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from curate import retry
from curate.fetch import stage
from curate.fetch.config import FetchConfig
from curate.readers.tables import TableConfig
from curate.run.schema import UserError
from tests.curate.fetch.misbehaving import in_thread

PATHS = (
    "/ok/0.jpg",
    "/once/503/1.jpg",
    "/status/404/2",
    "/status/503/3",
    "/once/429/4.jpg?after=0",
)


@pytest.fixture
def server():
    with in_thread() as server:
        yield server


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Fetch a table without further attempts, and write down how as a curation does; gives the run's name."""
    table = tmp_path / "t.tsv"
    table.write_text("".join(f"{server.base}{path}\ta caption\n" for path in PATHS))
    dataset = {"name": "web", "reader": "table", "path": str(table), "quotes": False}
    dataset |= {"columns": ["url", "caption"], "images_dir": str(tmp_path / "images")}
    fetch = {"enabled": True, "contact": "test@example.org", "host_rate": None, "retries": 0}
    fetch |= {"allow_networks": ["127.0.0.0/8"], "rows_per_shard": 3}
    stage.run(TableConfig(**dataset), FetchConfig(**fetch))
    known = {"dataset": dataset, "fetch": fetch, "provenance": {"overrides": ["dataset=table"]}}
    folder = tmp_path / "runs/web/curate"
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(known), folder / "config.yaml")
    monkeypatch.chdir(tmp_path)
    return folder


def typed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["retry", *arguments])
    capsys.readouterr()
    retry.main()
    return capsys.readouterr().out.splitlines()


def test_it_asks_again_for_what_may_pass_and_says_what_came(run, server, monkeypatch, capsys):
    before = dict(server.asked)
    lines = typed(monkeypatch, capsys, "web")
    assert "asked again for 3: 2 pictures came, 1 may still pass" in lines
    assert lines[-1] == "to take them in, type: python -m curate dataset=table run.name=web"
    assert [line.split()[:2] for line in lines if line.startswith("  ")] == [
        *(["stored", "3"], ["rate_limited", "0"], ["server_error", "1"], ["not_found", "1"])
    ]
    asked = {path for path, count in server.asked.items() if count > before[path]}
    assert asked - {"/robots.txt"} == {PATHS[1], PATHS[3], PATHS[4]}
    lines = typed(monkeypatch, capsys, "web", "fetch.retries=1", "fetch.retry_wait_s=0.01")
    assert lines[-1] == "to ask once more, later, type: python -m curate.retry web"
    assert server.asked[PATHS[3]] == before[PATHS[3]] + 3


def test_as_a_command_it_ends_politely(run):
    command = [sys.executable, "-m", "curate.retry", "web", "retries=5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'retries=5' is no setting of the fetch; type, for")


def test_where_nothing_may_pass_it_says_so(run, server, monkeypatch, capsys):
    monkeypatch.setattr(retry, "may_pass", lambda states: 0)
    before = dict(server.asked)
    lines = typed(monkeypatch, capsys, "web")
    assert lines[0] == "1 pictures are there, and 4 failed; none of these failures may pass"
    assert server.asked == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["fetch.rows_per_shard=9"], r"fetch\.rows_per_shard=9 would cut other shards"),
        (["dataset.limit=3"], "is no setting of the fetch"),
        (["fetch.retries"], "is no setting of the fetch"),
        (["fetch.retries=-1"], r"fetch\.retries=-1 is out of range"),
        (["fetch.enabled=false"], r"fetch\.enabled=false would ask for nothing; leave it out"),
        (
            ["fetch.retries=["],
            r"fetch\.retries must be a whole number such as 2, not '\['\. See .*--help",
        ),
        (
            ["fetch.retry=5"],
            r"no key fetch\.retry; .*mean fetch\.retries=5\. See python -m curate\.retry --help",
        ),
        (["fetch.allow_networks=10.0.0.0/8"], r"fetch\.allow_networks must be a list.* type"),
        (["fetch.retries=1,2"], r"fetch\.retries must be a whole number"),
    ],
)
def test_settings_are_checked(run, settings, said):
    with pytest.raises(UserError, match=said):
        retry.configuration(run, settings)


def test_the_help_lists_the_keys(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["retry", "--help"])
    with pytest.raises(SystemExit):
        retry.main()
    said = capsys.readouterr().out
    assert {"fetch.max_mb,", "fetch.retries,", "fetch.allow_networks"} <= {*said.split()}


def test_what_a_setting_forbade_is_asked_for_when_it_is_wider(run, server, monkeypatch, capsys):
    """Its own command and this one; once it has its answer under these settings it is not asked again."""
    dataset, _ = retry.configuration(run, [])
    plain = {"enabled": True, "contact": "test@example.org", "retries": 0, "rows_per_shard": 3}
    plain |= {"host_rate": None, "allow_networks": ["127.0.0.0/8"]}
    dataset.images_dir = str(Path(dataset.images_dir).with_name("other"))
    states = stage.run(dataset, FetchConfig(**plain, max_mb=0.0001))
    assert states["too_large"] == 3
    saved = OmegaConf.load(run / "config.yaml")
    saved.dataset.images_dir = dataset.images_dir
    saved.fetch.max_mb = 0.0001
    OmegaConf.save(saved, run / "config.yaml")
    before = dict(server.asked)
    lines = typed(monkeypatch, capsys, "web", "fetch.max_mb=32")
    assert server.asked[PATHS[0]] == before[PATHS[0]] + 1
    assert lines[-1].endswith("dataset=table run.name=web fetch.max_mb=32")
    assert any(line.startswith("asked again for 4: 3 pictures came") for line in lines)
    assert {path: server.asked[path] for path in (PATHS[0], PATHS[2])} == {
        PATHS[0]: before[PATHS[0]] + 1,
        PATHS[2]: before[PATHS[2]],
    }
    typed(monkeypatch, capsys, "web", "fetch.max_mb=32")
    assert server.asked[PATHS[0]] == before[PATHS[0]] + 1


def test_a_later_curation_that_fetched_nothing_changes_nothing(run):
    path = run / "config.yaml"
    known = OmegaConf.load(path)
    OmegaConf.save(OmegaConf.merge(known, {"fetch": {"enabled": False}}), path)
    assert retry.configuration(run, [])[1].enabled
    OmegaConf.save(OmegaConf.merge(known, {"fetch": {"enabled": False, "contact": None}}), path)
    with pytest.raises(
        UserError, match=r"type: python -m curate\.retry .*web fetch\.contact=ADDRESS"
    ):
        retry.configuration(run, [])
    assert retry.configuration(run, ["fetch.contact=me@example.org"])[1].contact == "me@example.org"


def test_a_run_that_has_not_fetched_is_refused(run):
    shutil.rmtree(run.parents[2] / "images")
    path = run / "config.yaml"
    known = OmegaConf.load(path)
    for change in ({"fetch": {"enabled": False}}, {"fetch": None}):
        OmegaConf.save(OmegaConf.merge(known, change), path)
        with pytest.raises(UserError, match=r"run\.name=web.* fetch\.enabled=true fetch\.contact="):
            retry.configuration(run, [])

"""A table without pictures is offered to be fetched, and fetched where that is asked for."""

import shlex
from dataclasses import replace

import pytest

from curate.clip.config import ClipConfig
from curate.fetch.config import FetchConfig
from curate.pipeline import fetching, request
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.readers.tables import TableConfig
from curate.run.config import RunConfig
from curate.run.schema import Busy, UserError
from tests.curate.fetch.misbehaving import in_thread


@pytest.fixture
def config(tmp_path):
    """Of a table of 40 addresses that nobody is asked for."""
    (tmp_path / "web.csv").write_text(
        "url,caption\n" + "".join(f"http://web.test/{n}.jpg,number {n}\n" for n in range(40))
    )
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="web"),
        dataset=TableConfig(name="web", reader="table", path=str(tmp_path / "web.csv")),
        clip=ClipConfig(name="ViT-B-32"),
    )


def offer(config, *typed, monkeypatch):
    monkeypatch.setattr(fetching, "typed", lambda: list(typed))
    with pytest.raises(UserError) as refused:
        fetching.settle(config)
    return str(refused.value)


def test_it_says_how_many_there_are_how_large_and_what_to_type(config, tmp_path, monkeypatch):
    said = offer(config, "dataset=table", "dataset.path=web.csv", monkeypatch=monkeypatch)
    assert "lists about 40 addresses of pictures" in said
    assert "about 1.2 MB" in said  # 30 kB each
    line = next(line for line in said.splitlines() if line.startswith("  "))
    assert shlex.split(line) == [
        *("python", "-m", "curate", "dataset=table", "dataset.path=web.csv"),
        f"dataset.images_dir={tmp_path / 'images'}",
        *("fetch.enabled=true", "fetch.contact=you@example.org"),
    ]


def test_sizes_in_the_table_count(config, tmp_path, monkeypatch):
    rows = "".join(f"http://web.test/{n}.jpg,number {n},2000,1000\n" for n in range(40))
    (tmp_path / "web.csv").write_text("url,caption,original_width,original_height\n" + rows)
    assert "about 20.0 MB" in offer(config, monkeypatch=monkeypatch)  # 40 of 2 megapixels


def test_limit_and_share_are_what_is_offered(config, tmp_path, monkeypatch):
    config.dataset = replace(config.dataset, limit=7)
    assert "about 7 addresses" in offer(config, monkeypatch=monkeypatch)
    rows = "".join(f"http://web.test/{n}.jpg,number {n}\n" for n in range(20_000))
    (tmp_path / "web.csv").write_text("url,caption\n" + rows)
    config.dataset = replace(config.dataset, limit=None, sample=0.25)
    said = offer(config, monkeypatch=monkeypatch)
    count = int(said.split("about ")[1].split(" addresses")[0].replace(",", ""))
    assert 4500 < count < 5500


def test_trial_without_pictures_says_how_to_fetch_some(config, monkeypatch):
    config.dry_run = 500
    said = offer(config, "dataset=table", "dry_run=500", monkeypatch=monkeypatch)
    assert "dataset=table dataset.limit=500 " in said
    assert "dry_run=500" not in said.splitlines()[1]


def test_where_pictures_are_nothing_is_offered(config, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(b"")
    config.dataset = replace(config.dataset, images_dir=str(folder))
    fetching.settle(config)


def test_table_without_addresses_or_that_is_not_there_is_left_to_its_reader(config, tmp_path):
    (tmp_path / "web.csv").write_text("file_name,caption\na.jpg,a cat\n")
    fetching.settle(config)
    (tmp_path / "web.csv").unlink()
    fetching.settle(config)


def test_only_tables_can_be_fetched(config):
    config.fetch = FetchConfig(enabled=True, contact="me@example.org")
    config.dataset = FolderConfig(name="mine", reader="folder", root="mine")
    with pytest.raises(UserError, match=r"dataset=mine is none; type fetch.enabled=false"):
        fetching.settle(config)


def from_server(config, tmp_path, base, paths):
    lines = "".join(f"{base}{path},number {n}\n" for n, path in enumerate(paths))
    (tmp_path / "web.csv").write_text("url,caption\n" + lines)
    config.dataset = replace(config.dataset, images_dir=str(tmp_path / "images"))
    config.fetch = FetchConfig(
        enabled=True, contact="me@example.org", host_rate=None, retries=0,
        allow_networks=["127.0.0.0/8"],
    )  # fmt: skip


def test_what_is_asked_for_is_fetched_and_counted(config, tmp_path, capsys):
    with in_thread() as server:
        paths = ["/ok/0.jpg", "/ok/1.png", "/status/404/2", "/status/503/3"]
        from_server(config, tmp_path, server.base, paths)
        fetching.settle(config)
    said = capsys.readouterr().out
    assert "fetched: 2 of 4 pictures; not: " in said
    assert "other reasons" not in said
    assert "1 nothing is there (404, 410)" in said
    assert "1 of the failures may pass: python -m curate.retry" in said
    assert (tmp_path / "images/000000.tar").is_file()


def test_nothing_that_came_is_an_error(config, tmp_path):
    with in_thread() as server:
        from_server(config, tmp_path, server.base, ["/status/404/0", "/status/404/1"])
        with pytest.raises(UserError, match=r"none of the 2 pictures .*2 nothing is there"):
            fetching.settle(config)


def test_trial_fetches_nothing(config, tmp_path, capsys):
    with in_thread() as server:
        from_server(config, tmp_path, server.base, ["/ok/0.jpg"])
        (tmp_path / "images").mkdir()
        (tmp_path / "images/0.jpg").write_bytes(b"")
        config.dry_run = 5
        fetching.settle(config)
        assert not server.asked
    assert "dry_run fetches nothing" in capsys.readouterr().out


def test_what_starts_later_fetches_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr(request.availability, "check_available", lambda clip: None)
    monkeypatch.setattr(request.models, "check", lambda clip: None)
    monkeypatch.setattr(request.cut, "check", lambda *_: None)
    with in_thread() as server:
        from_server(config, tmp_path, server.base, ["/ok/0.jpg"])
        request.check(config)
        assert not server.asked
        assert not (tmp_path / "images").exists()
        config.fetch = FetchConfig()
        with pytest.raises(FileNotFoundError, match=r"dataset\.images_dir"):
            request.check(config)


def test_where_nothing_came_the_same_command_asks_again(config, tmp_path):
    with in_thread() as server:
        from_server(config, tmp_path, server.base, ["/once/503/0.jpg", "/status/404/1"])
        with pytest.raises(UserError, match=r"type the same command again"):
            fetching.settle(config)
        fetching.settle(config)
        assert server.asked["/once/503/0.jpg"] == 2
        assert server.asked["/status/404/1"] == 1


def test_folder_that_is_a_file_is_refused(config, tmp_path):
    from_server(config, tmp_path, "http://127.0.0.1:1", ["/ok/0.jpg"])
    config.dataset = replace(config.dataset, images_dir=str(tmp_path / "web.csv"))
    with pytest.raises(UserError, match=r"web.csv is a file, .* dataset.images_dir=FOLDER"):
        fetching.settle(config)


def test_own_contact_is_in_the_offer(config, monkeypatch):
    config.fetch = FetchConfig(contact="me@home.example")
    assert "fetch.contact=me@home.example" in offer(config, monkeypatch=monkeypatch)


@pytest.mark.parametrize("kind", ["pictures are there", "no table"])
def test_settings_that_would_do_nothing_are_refused(config, tmp_path, monkeypatch, kind):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/0.jpg").write_bytes(b"")
    config.dataset = replace(config.dataset, images_dir=str(tmp_path / "pictures"))
    if kind == "no table":
        config.dataset = FolderConfig(name="f", reader="folder", root=str(tmp_path))
    given = ["fetch.opt_out_hosts=list", "fetch.contact=a@example.org"]
    monkeypatch.setattr(fetching, "_overrides", lambda: given)
    with pytest.raises(
        UserError, match=r"fetch\.opt_out_hosts=list has no effect: .* Type .*fetch\.enabled="
    ):
        fetching.settle(config)
    given.append("fetch.enabled=false")  # which says that it is meant
    fetching.settle(config)
    given[:] = ["dataset.limit=3"]
    fetching.settle(config)


def test_beside_another_curation_what_is_there_can_be_read(config, tmp_path):
    config.dataset = replace(config.dataset, images_dir=str(tmp_path / "images"))
    config.fetch = FetchConfig(enabled=True, contact="a@example.org")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/fetch.json").write_text("{}")
    with fetching.reading(config.dataset), pytest.raises(Busy, match=r"type fetch\.enabled=false"):
        fetching.settle(config)

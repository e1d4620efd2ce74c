"""Environments of peers that cannot live beside the platform's own packages."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_assets.installation.settings import find_settings
from resources.engines.package_indexes import uv_environment

LOCKS = Path(__file__).parent


def environment_of(name: str, *requirements: str) -> Path:
    """A virtual environment below the state folder, made at the first call and reused as it is."""
    return _environment(name, "\n".join(requirements), requirements)


def locked_environment(name: str) -> Path:
    """As `environment_of`, of exactly what `<name>.lock.txt` beside this file says (`make lock`)."""
    lock = LOCKS / f"{name}.lock.txt"
    return _environment(name, lock.read_text(), ("--no-deps", "--require-hashes", "-r", str(lock)))


def _environment(name: str, mark_text: str, what: Sequence[str]) -> Path:
    folder = find_settings().home / "benchmarks" / name
    mark = folder / "installed"
    if mark.is_file() and mark.read_text() == mark_text:
        return folder
    uv = str(Path(sys.executable).with_name("uv"))
    environment = {**os.environ, **uv_environment()}
    subprocess.run(
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], env=environment, check=True
    )
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin" / "python",
        *what,
    ]
    subprocess.run(install, env=environment, check=True)
    mark.write_text(mark_text)
    return folder


def boto_config(folder: Path, address: str) -> Path:
    """A configuration of gsutil for a GCS server of this machine, which it reaches by https alone."""
    host, port = address.removeprefix("https://").split(":")
    text = (
        f"[Credentials]\ngs_json_host = {host}\ngs_json_port = {port}\ngs_host = {host}\ngs_port = {port}\n"
        "[Boto]\nis_secure = True\nhttps_validate_certificates = False\n[GSUtil]\nprefer_api = json\n"
        f"state_dir = {folder}/gsutil\ncheck_hashes = if_fast_else_skip\n"
    )
    (folder / "boto").write_text(text)
    return folder / "boto"

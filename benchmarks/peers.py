"""Environments of peers that cannot live beside the platform's own packages."""

import os
import subprocess
import sys
from pathlib import Path

from llm_assets.settings import find_settings
from resources.package_indexes import uv_environment


def environment_of(name: str, *requirements: str) -> Path:
    """A virtual environment below the state folder, made at the first call and reused as it is."""
    folder = find_settings().home / "benchmarks" / name
    mark = folder / "installed"
    if mark.is_file() and mark.read_text() == "\n".join(requirements):
        return folder
    uv = str(Path(sys.executable).with_name("uv"))
    environment = {**os.environ, **uv_environment()}
    subprocess.run(
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], env=environment, check=True
    )
    install = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *requirements]
    subprocess.run(install, env=environment, check=True)
    mark.write_text("\n".join(requirements))
    return folder

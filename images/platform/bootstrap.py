"""Makes the platform's virtual environment from a lock. A bare Python 3.11 with venv and pip is all it needs.

    python3.11 images/platform/bootstrap.py                                  .venv, to work on this repository
    python3.11 images/platform/bootstrap.py --lock platform                  .venv, to use the platform
    python3.11 images/platform/bootstrap.py --lock cluster --into /opt/venv  what the platform's image holds

pip fetches a pinned uv (hashes checked), uv installs the lock (hashes checked) and this project: editable,
and in an image the wheel. A .venv to work with does for using the platform as well. The modules that its
programs import are compiled, a third of all.
A stamp is written last: with it and unchanged locks there is nothing to do, without it all is made again.
"""

from __future__ import annotations  # so that an older Python gets as far as being told that it is one

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = ROOT / "images" / "platform"
BOOTSTRAP_LOCK = LOCKS / "bootstrap.lock.txt"
HASHED = ["--require-hashes", "--only-binary", ":all:"]
DEV = LOCKS / "dev.lock.txt"
IMAGE = LOCKS / "cluster.lock.txt"
PROGRAMS = (
    "llm_assets.cli.demo, llm_assets.gateway.collector, llm_assets.gateway.keeper, "
    "dagster_webserver.cli, dagster._daemon.daemon, dagster._cli.dev",
    "mlflow.server.fastapi_app, mlflow.store.tracking.sqlalchemy_store, alembic, pyarrow.parquet",
)
"""What the programs of the platform import, in two halves for two cores."""
OF_A_CLUSTER = (
    "boto3, dagster_gcp.gcs, dagster_k8s, dagster_mlflow, dagster_postgres, google.cloud.storage, "
    "kubernetes.client",
)
"""What they import in a cluster as well; nobody may write bytecode into an image later."""
SAID_LINES = 15
STAMP = "llm-assets-setup.json"
ASK_FOR_PYTHON = "Install Python 3.11 and say which it is: make PYTHON=/path/to/python3.11 …"


def main() -> None:
    arguments = _parser().parse_args()
    if sys.version_info[:2] != (3, 11):
        here = f"{sys.version.split()[0]} ({sys.executable})"
        _stop(f"llm-assets needs Python 3.11, this is {here}. {ASK_FOR_PYTHON}")
    environment = Path(arguments.into).absolute()
    with _alone():
        lock = _lock(arguments.lock, environment)
        if _stamped(environment) != _wanted(lock):
            _make(environment, lock)


def _lock(name: str, environment: Path) -> Path:
    """An environment to work with stays one: it has all of the platform's."""
    works = (_stamped(environment) or {}).get("lock") == DEV.name
    return DEV if name == "platform" and works else LOCKS / f"{name}.lock.txt"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--into", default=ROOT / ".venv", help="folder of the virtual environment (default: .venv)"
    )
    parser.add_argument("--lock", default="dev", choices=["dev", "platform", "cluster"])
    return parser


def _make(environment: Path, lock: Path) -> None:
    if not _can_be_kept(environment):
        print(f"Making {environment} …", flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)], "on Debian, install the package python3-venv")
    (environment / STAMP).unlink(missing_ok=True)
    print(f"Installing uv from {BOOTSTRAP_LOCK.name} …", flush=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    _run([*pip, *HASHED, "--no-deps", "-r", str(BOOTSTRAP_LOCK)], "pip's own settings say where from")
    print(f"Installing {lock.name} …", flush=True)
    _install(environment, lock)
    stamp = environment / f"{STAMP}.new"
    stamp.write_text(json.dumps(_wanted(lock), indent=2) + "\n")
    stamp.replace(environment / STAMP)


def _install(environment: Path, lock: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from resources.engines.package_indexes import uv_environment

    python = str(environment / "bin" / "python")
    settings = uv_environment(python=python)
    uv = [str(environment / "bin" / "uv"), "pip"]
    sync = [*uv, "sync", "--python", python, "--no-progress", *HASHED, "--no-compile-bytecode"]
    _sync([*sync, str(BOOTSTRAP_LOCK), str(lock)], lock, settings)
    install = [
        *uv,
        "install",
        "--python",
        python,
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--offline",
    ]
    project = [str(ROOT)] if lock == IMAGE else ["--editable", str(ROOT)]
    _run([*install, *project], "it builds with hatchling from the lock", settings)
    print("Compiling what its programs import …", flush=True)
    _compile(python, PROGRAMS + OF_A_CLUSTER if lock == IMAGE else PROGRAMS)


def _compile(python: str, programs: tuple[str, ...]) -> None:
    """Also where Python is told to write no bytecode: each start of each program would compile anew."""
    written = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    commands = [[python, "-W", "ignore", "-c", f"import {modules}"] for modules in programs]
    started = [subprocess.Popen(command, env=written, close_fds=False) for command in commands]
    for process, command in zip(started, commands, strict=True):
        if code := process.wait():
            _failed(command, code, "the environment is not whole, delete it and run it again")


def _sync(command: list[str], lock: Path, environment: dict[str, str]) -> None:
    """Shows in one line how far uv is; all that it says only when it fails."""
    from resources.engines.builds import Downloads

    packages = sum("==" in line for line in lock.read_text().splitlines())
    line = _Line()
    downloads = Downloads(line.show, packages=packages)
    said = []
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, close_fds=False
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            said.append(text)
            downloads.read(text)
    line.end()
    if process.returncode:
        sys.stderr.writelines(said[-SAID_LINES:])
        _failed(command, process.returncode, "run it again: what was downloaded is kept")


class _Line:
    """A line of the terminal that changes; elsewhere a line for each kind of work."""

    def __init__(self) -> None:
        self._kind = ""

    def show(self, text: str) -> None:
        kind = text.partition(" ")[0]
        if sys.stdout.isatty():
            print(f"\r\x1b[K  {text}", end="", flush=True)
        elif kind != self._kind:
            print("  downloading" if kind == "downloading" else f"  {text}", flush=True)
        self._kind = kind

    def end(self) -> None:
        if sys.stdout.isatty():
            print(flush=True)


def _run(command: list[str], remedy: str, environment: dict[str, str] | None = None) -> None:
    code = subprocess.run(command, env=environment, close_fds=False).returncode
    if code:
        _failed(command, code, remedy)


def _failed(command: list[str], code: int, remedy: str) -> None:
    _stop(f"`{' '.join(command)}` failed with exit code {code}; {remedy}.")


def _stop(message: str) -> None:
    sys.exit(f"error: {message}")


@contextmanager
def _alone() -> Iterator[None]:
    """Two at once would break each other's environment. pip and uv inherit the lock, so that they are waited
    for when only this process was killed.
    """
    folder = os.open(LOCKS, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _stamped(environment: Path) -> dict[str, str] | None:
    try:
        stamp: dict[str, str] = json.loads((environment / STAMP).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return stamp if (environment / "bin" / "python").exists() else None


def _wanted(lock: Path) -> dict[str, str]:
    sources = [BOOTSTRAP_LOCK, lock, ROOT / "pyproject.toml", Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return {"lock": lock.name, "digest": digest, "project": str(ROOT), "python": sys.version}


def _can_be_kept(environment: Path) -> bool:
    """Without a stamp an installation was cut short: uv would not notice a package that is there in part."""
    stamp = _stamped(environment)
    return stamp is not None and stamp["python"] == sys.version and stamp["project"] == str(ROOT)


if __name__ == "__main__":
    main()

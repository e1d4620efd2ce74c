"""The engines on this machine: LLaMA-Factory (`train`) and vLLM (`serve`), each in an environment of its own.

    <engines>/train -> train-3f2a91c04d1e-x7d2      the link is moved when its environment is whole
    <engines>/train-3f2a91c04d1e-x7d2/llm-assets-engine.json      what it was made of

A new lock makes a new folder beside the old one, so a running engine keeps its files; the old folder goes
when nothing runs in it any more. An installation that was cut short leaves a folder that no link points to:
the next one starts afresh (what was downloaded is in uv's cache) and clears it away.
"""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from resources.engines.builds import Build, Report, build
from resources.engines.locks import (
    ENGINES,
    Device,
    EngineError,
    EngineName,
    InstalledEngine,
    device_here,
    lock_digest,
)

__all__ = [
    "ENGINES",
    "Device",
    "EngineError",
    "EngineName",
    "EngineStatus",
    "device_here",
    "engine_python",
    "engine_status",
    "install",
    "wait_for_installation",
]

STAMP = "llm-assets-engine.json"
INSTALLATION_S = 2 * 3600


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """What is known of one engine here, without starting it."""

    engine: EngineName
    folder: Path
    installed: bool
    current: bool = False  # made of the lock that is in the repository now
    device: Device | None = None
    lock_digest: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    remedy: str | None = None


def engine_status(engines: Path, engine: EngineName) -> EngineStatus:
    """Whether the engine is there, for which device, in which versions, and what to do when it is not."""
    link = engines / engine
    stamp = _stamp(link)
    if stamp is None:
        return EngineStatus(
            engine=engine, folder=link, installed=False, remedy=f"llm-assets engines install {engine}"
        )
    current = stamp.lock_digest == lock_digest(engine, stamp.device)
    return EngineStatus(
        engine=engine,
        folder=link.resolve(),
        installed=True,
        current=current,
        device=stamp.device,
        lock_digest=stamp.lock_digest,
        versions=stamp.versions,
        remedy=None if current else f"llm-assets engines install {engine}",
    )


def installed_engine(engines: Path, engine: EngineName) -> InstalledEngine:
    """Raises EngineError when the engine is not installed; the text says what to do."""
    status = engine_status(engines, engine)
    if status.device is None or status.lock_digest is None:
        raise EngineError(f"The {engine} engine is not installed in {engines}: {status.remedy}")
    return InstalledEngine(
        engine=engine, device=status.device, lock_digest=status.lock_digest, versions=status.versions
    )


def engine_python(engines: Path, engine: EngineName) -> Path:
    """The engine's Python, by its environment's own folder: a later installation leaves that one alone."""
    python = (engines / engine).resolve() / "bin" / "python"
    if not python.exists():
        raise EngineError(
            f"The {engine} engine is not installed in {engines}: llm-assets engines install {engine}"
        )
    return python


def install(
    engines: Path, engine: EngineName, *, device: Device | None = None, report: Report = print
) -> EngineStatus:
    """Makes the engine's environment unless it is there already; `device` is by default what the machine has.

    Raises EngineError. May be called by several processes at once: one builds, the others wait for it.
    """
    wanted = device or device_here()
    digest = lock_digest(engine, wanted)
    if not _is_made_of(engines / engine, digest):
        engines.mkdir(parents=True, exist_ok=True)
        with _alone(engines / f".{engine}.lock", report):
            if not _is_made_of(engines / engine, digest):
                _refuse_a_stranger(engines / engine)
                _clear(engines, engine)
                _replace(engines / engine, _build(engine, wanted, digest, engines, report))
                _clear(engines, engine)
    return engine_status(engines, engine)


def wait_for_installation(engines: Path, engine: EngineName, report: Report) -> None:
    """Where the engine is missing and someone is installing it at this moment, waits for the end of that."""
    if engines.is_dir() and not engine_status(engines, engine).installed:
        with _alone(engines / f".{engine}.lock", report):
            pass


@dataclass(frozen=True, kw_only=True)
class _Stamp:
    engine: EngineName
    device: Device
    lock_digest: str
    versions: dict[str, str]


def _stamp(folder: Path) -> _Stamp | None:
    try:
        return _Stamp(**json.loads((folder / STAMP).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise EngineError(
            f"{folder / STAMP} cannot be read ({error}): delete {folder} and install it again"
        ) from error


def _is_made_of(folder: Path, digest: str) -> bool:
    stamp = _stamp(folder)
    return stamp is not None and stamp.lock_digest == digest and (folder / "bin" / "python").exists()


def _build(engine: EngineName, device: Device, digest: str, engines: Path, report: Report) -> Path:
    folder = engines / f"{engine}-{digest[:12]}-{secrets.token_hex(2)}"
    try:
        what = Build(engine=engine, device=device, folder=folder, uv=_uv(), compiled=False, report=report)
        versions = build(what)
        stamp = _Stamp(engine=engine, device=device, lock_digest=digest, versions=versions)
        (folder / STAMP).write_text(json.dumps(asdict(stamp), indent=2) + "\n")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # gives the disk back, above all when it was full
        raise
    return folder


def _replace(link: Path, folder: Path) -> None:
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(folder.name)
    new.replace(link)


def _refuse_a_stranger(link: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise EngineError(
            f"{link} was not made by llm-assets: move it away, or set LLM_ASSETS_ENGINES to another folder"
        )


def _clear(engines: Path, engine: EngineName) -> None:
    """Removes what no link points to and nothing runs in: replaced environments and unfinished ones."""
    kept = (engines / engine).resolve()
    for folder in engines.glob(f"{engine}-*"):
        if folder.resolve() != kept and not _is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(folder: Path) -> bool:
    """Whether a process was started from the folder or has a library of it loaded (vLLM renames itself)."""
    path = os.fsencode(f"{folder}{os.sep}")
    return any(
        path in _read(file) for pattern in ("*/cmdline", "*/maps") for file in Path("/proc").glob(pattern)
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process ended, or it is another user's
        return b""


def _wait_for(lock: BaseFileLock) -> None:
    try:
        lock.acquire(timeout=INSTALLATION_S)
    except Timeout as error:
        raise EngineError(
            f"Another installation has held {lock.lock_file} for over {INSTALLATION_S // 3600} hours: "
            "end it (`fuser` names it), then run this again"
        ) from error


@contextmanager
def _alone(path: Path, report: Report) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("waiting for another installation of it")
        _wait_for(lock)
    try:
        yield
    finally:
        lock.release()


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise EngineError(f"uv is not installed beside {sys.executable}: run `pip install uv` there")
    return uv

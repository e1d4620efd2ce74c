"""An artifact: a folder of files that never changes, and the manifest that proves it.

The digest of an artifact is the SHA-256 of its files' paths, sizes and hashes, so two folders with
the same bytes have the same digest wherever and whenever they were made. What is known *about* the
folder (its fingerprint, its parents, measurements) are attributes: they stand in the manifest but
are not part of the digest. The manifest carries a checksum of its own, so that altered attributes are
noticed too.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from resources.errors import LlmAssetsError
from resources.hashes import sha256_of
from resources.names import MODEL, TENANT, VERSION

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "model.sig"
BESIDE_THE_FILES = (MANIFEST_NAME, SIGNATURE_NAME)
LABEL_TIME = "%Y%m%dT%H%M%S.%f"  # UTC, how the label of a version begins
VERIFYING_THREADS = 4

Collection = Literal["base_models", "sources", "datasets", "adapters", "models", "cards"]
SHARED: tuple[Collection, ...] = ("base_models", "sources")
"""Without a tenant. A source is a base model as it was fetched, kept while an engine makes a folder of it."""


class ArtifactError(LlmAssetsError):
    """An artifact is missing, damaged, or named in a way that is not allowed."""


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """One file: POSIX path relative to the artifact's folder, size in bytes, SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not {"", ".", ".."}.isdisjoint(self.path.split("/")) or "\0" in self.path:
            raise ArtifactError(
                f"An artifact's file may not be called {self.path!r}: that is no path below a folder."
            )
        if self.path in BESIDE_THE_FILES:
            raise ArtifactError(f"An artifact's file may not be called {self.path!r}: the store has one.")


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
    """A version: what its bytes are and what is known about it. Where they lie, the store knows."""

    line: Line
    version: str
    files: tuple[ArtifactFile, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its folder in a store: `models/team-a/support_bot/<version>`."""
        return f"{self.line}/{self.version}"

    @property
    def uri(self) -> str:
        """The address that does not depend on which store holds it."""
        return f"artifact://{self.key}"

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

    def file(self, path: str) -> ArtifactFile:
        """Raises:
        ArtifactError: It has no file of that path.
        """
        found = next((file for file in self.files if file.path == path), None)
        if found is None:
            raise ArtifactError(f"{self.uri} has no file {path!r}.")
        return found

    def has(self, path: str) -> bool:
        return any(file.path == path for file in self.files)


def parse_uri(uri: str) -> tuple[Line, str]:
    """The line and the version's label of an `artifact://…` address.

    Raises:
        ArtifactError: It is no such address.
    """
    scheme, _, rest = uri.partition("://")
    parts = rest.split("/")
    if scheme != "artifact" or len(parts) not in (3, 4):
        raise ArtifactError(
            f"{uri!r} is not an artifact's address; artifact://models/<tenant>/<model>/<version> is."
        )
    tenant = parts[1] if len(parts) == 4 else None
    line = Line(collection=parts[0], tenant=tenant, name=parts[-2])  # type: ignore[arg-type]  # Line checks
    if not VERSION.fullmatch(parts[-1]):
        raise ArtifactError(f"{uri!r} is not an artifact's address: {parts[-1]!r} cannot be a version.")
    return line, parts[-1]


def digest_of(files: tuple[ArtifactFile, ...]) -> str:
    rows = [[file.path, file.size_bytes, file.sha256] for file in sorted(files, key=lambda file: file.path)]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def fingerprint_of(**ingredients: object) -> str:
    """One hash of everything that decides a result; key order does not matter."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def new_version(fingerprint: str | None, *, at: datetime | None = None) -> str:
    """A label that is unique, sorts by time and ends as `version_ending` says.

    Such as `20261121T184501.123456Z-1a2b3c4d`.
    """
    moment = (at or datetime.now(UTC)).strftime(LABEL_TIME)
    return f"{moment}Z-{version_ending(fingerprint) if fingerprint else secrets.token_hex(4)}"


def version_ending(fingerprint: str) -> str:
    """By its label alone a version is known not to have a fingerprint, without reading its manifest."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:8]


def paths_of(folder: Path) -> list[str]:
    """The POSIX paths of every file below `folder` but manifest and signature, sorted. Links are followed."""
    found = [
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    return sorted(path for path in found if path not in BESIDE_THE_FILES)


def entries_of(folder: Path) -> dict[str, os.stat_result]:
    """Everything below the folder that is not a folder, by POSIX path. Links are not followed."""
    found: dict[str, os.stat_result] = {}
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    found[Path(entry.path).relative_to(folder).as_posix()] = os.lstat(entry.path)
    return found


def refuse_foreign(artifact: Artifact, there: Iterable[str], *, place: str) -> None:
    """What lies beside an artifact's files was never published, and no signature covers it.

    Args:
        there: The paths of everything that lies in its folder.
        place: The folder, for the error.

    Raises:
        ArtifactError: Names the first foreign file.
    """
    known = {*BESIDE_THE_FILES, *(file.path for file in artifact.files)}
    if foreign := sorted(set(there) - known):
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise ArtifactError(
            f"{artifact.uri}: {foreign[0]}{more} in {place} is not a file of it: it was put there after the "
            "version was published. Find out by whom and move it away; then run again."
        )


def manifest_text(artifact: Artifact) -> str:
    content = {
        "uri": artifact.uri,
        "digest": artifact.digest,
        "files": [vars(file) for file in artifact.files],
        "attributes": dict(artifact.attributes),
    }
    content = json.loads(json.dumps(content))  # as a reader sees it: lists for tuples, text for every key
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1, sort_keys=True) + "\n"


def parse_manifest(line: Line, version: str, text: bytes, *, place: str) -> Artifact:
    """The artifact that a manifest tells of; `place` is where it was read, for errors.

    Raises:
        ArtifactError: It is no manifest, was altered, or is that of another version.
    """
    try:
        content = json.loads(text)
        checksum = content.pop("checksum")
        files = tuple(ArtifactFile(**file) for file in content["files"])
        if len({file.path for file in files}) != len(files):
            raise ValueError("a file is listed twice")
        artifact = Artifact(line=line, version=version, files=files, attributes=content["attributes"])
        said = (content["uri"], content["digest"])
    except (ValueError, KeyError, TypeError, AttributeError, ArtifactError) as error:
        raise ArtifactError(f"{place} is not a manifest: {error!r}. {_ANEW}") from error
    if checksum != _checksum(content) or said[1] != artifact.digest:
        raise ArtifactError(f"{place} was altered: its checksum is that of another manifest. {_ANEW}")
    if said[0] != artifact.uri:
        raise ArtifactError(f"{place} is the manifest of {said[0]}, not of {artifact.uri}. {_ANEW}")
    return artifact


_ANEW = "Delete that version's folder and run again."


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify(artifact: Artifact, folder: Path, *, place: Path) -> None:
    """Reads every byte and compares.

    Args:
        folder: Where the files are read.
        place: The version's folder in the store, for the error.

    Raises:
        ArtifactError: Names the first file that is missing, has another size or other bytes.
    """
    with ThreadPoolExecutor(VERIFYING_THREADS) as threads:
        problems = threads.map(lambda file: _damage(folder / file.path, file), artifact.files)
        if problem := next(filter(None, problems), None):
            raise ArtifactError(f"{artifact.uri}: {problem}. Delete {place} and run again.")


def _damage(path: Path, file: ArtifactFile) -> str | None:
    if not path.is_file():
        return f"{file.path} is missing"
    if (size_bytes := path.stat().st_size) != file.size_bytes:
        return f"{file.path} has {size_bytes} bytes, published were {file.size_bytes}"
    if sha256_of(path) != file.sha256:
        return f"the bytes of {file.path} are not those that were published"
    return None

"""The artifact store on a disk: `<root>/<collection>/<tenant>/<name>/<version>/`.

A version appears by one rename of a finished folder whose manifest was written last, so it is whole
or it is not there. Files are moved in from the same disk, never copied through memory.
Not covered here: object storage and a node's cache of verified artifacts.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from resources.artifacts import (
    MANIFEST_NAME,
    Artifact,
    ArtifactError,
    Line,
    describe_folder,
    manifest_text,
    new_version,
    paths_of,
    read_manifest,
    verify,
)
from resources.names import VERSION
from resources.signatures import SIGNATURE_NAME, Signer

UNFINISHED = ".unfinished-"


class ArtifactStore(dg.ConfigurableResource):
    """Publishes folders as immutable versions and finds them again."""

    root: str
    key_folder: str = ""  # the folder of the signing key; without one nothing is signed
    signer: str = "key"

    def publish(self, line: Line, folder: Path, attributes: Mapping[str, Any]) -> Artifact:
        """Moves `folder` into the store as a new version of `line`.

        Returns the version that is already there when one has the same bytes and fingerprint.

        Raises:
            ArtifactError: The folder is empty, or the disk is full.
        """
        with _disk_full_named(self.root):
            return self._publish(line, folder, attributes)

    def _publish(self, line: Line, folder: Path, attributes: Mapping[str, Any]) -> Artifact:
        files = describe_folder(folder)
        if not files:
            raise ArtifactError(f"There is nothing to publish as {line}: {folder} holds no file.")
        version = new_version(files)
        home = Path(self.root, str(line))
        artifact = Artifact(
            line=line, version=version, folder=home / version, files=files, attributes=dict(attributes)
        )
        for known in self.versions(line):
            if known.digest == artifact.digest and known.fingerprint == artifact.fingerprint:
                shutil.rmtree(folder)
                return known
        home.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(home)
        staged = home / f"{UNFINISHED}{uuid.uuid4().hex}"
        _move(folder, staged)
        if self.key_folder:
            signature = Signer(keys=Path(self.key_folder), setting=self.signer).sign(artifact)
            (staged / SIGNATURE_NAME).write_bytes(signature)
        _write_through(staged, manifest_text(artifact))
        staged.rename(artifact.folder)
        _sync(home)
        return artifact

    def versions(self, line: Line) -> Iterator[Artifact]:
        """The whole versions of `line`, the newest first."""
        home = Path(self.root, str(line))
        folders = sorted(home.iterdir(), reverse=True) if home.is_dir() else []
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                yield read_manifest(line, folder)

    def get(self, uri: str) -> Artifact:
        """The artifact at an `artifact://…` address.

        Raises:
            ArtifactError: The address is not one, or nothing was published there.
        """
        line, version = parse_uri(uri)
        return read_manifest(line, Path(self.root, str(line), version))

    def find(self, line: Line, fingerprint: str) -> Artifact | None:
        """The newest version that was made from exactly these ingredients."""
        return next((known for known in self.versions(line) if known.fingerprint == fingerprint), None)

    def object_url(self, artifact: Artifact) -> str:
        """Where an object store has the artifact's files, for programs that read them there.

        Raises:
            ArtifactError: They lie on a disk.
        """
        raise ArtifactError(
            f"{artifact.uri} lies on a disk, {artifact.folder}, and vLLM streams from gs:// and s3:// only. "
            "Set serving.weights of its model to disk."
        )

    def verify(self, artifact: Artifact) -> Artifact:
        verify(artifact)
        return artifact


def parse_uri(uri: str) -> tuple[Line, str]:
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


@contextmanager
def _disk_full_named(root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(root).free // 2**20 if Path(root).is_dir() else 0
        raise ArtifactError(
            f"The disk of the artifact store at {root} is full ({free} MiB free). Nothing was published; "
            "free some space and run again."
        ) from error


def _move(folder: Path, target: Path) -> None:
    """A rename on one disk; from another a copy, file by file, so that the first error is the one told."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for file in paths_of(folder):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, target / file)
        shutil.rmtree(folder)


def _clear_unfinished(home: Path) -> None:
    """What killed publishers left; a line has one writer at a time (`llm_assets/line_lock.py`)."""
    for left in home.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left)


def _write_through(staged: Path, manifest: str) -> None:
    for file in sorted(staged.rglob("*")):
        if file.is_file():
            _sync(file)
    path = staged / MANIFEST_NAME
    path.unlink(missing_ok=True)  # it may be a hard link to another artifact's
    path.write_text(manifest)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

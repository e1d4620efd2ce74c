"""Objects in a generic repository of JFrog Artifactory, through its REST API.

https://jfrog.com/help/r/jfrog-rest-apis. Listing and copying need Artifactory Pro (or better); the token
needs Read, Deploy and Delete on the repository. Artifactory has no conditional write: see
`artifactory_claims.py` for what `create` rests on. Memory: blocks of 256 KiB for an upload; for a download
see `chunks.py`.
Not covered: uploads of one file in parallel parts; Artifactory takes a file as one request, so a broken one
begins again, unless the server has its bytes already (deploy by checksum).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from resources.object_stores import chunks
from resources.object_stores.artifactory_claims import create_with_claim
from resources.object_stores.checksums import matching
from resources.object_stores.closing import closed_with
from resources.object_stores.http_requests import Access, HttpRequests
from resources.object_stores.objects import (
    Moved,
    Names,
    ObjectStoreError,
    StoredObject,
    Transferred,
    checked_key,
    checked_prefix,
    missing,
    unfinished,
)
from resources.object_stores.retries import Passing, Retries, retried
from resources.object_stores.sending import Sending

TOKEN_VARIABLE = "ARTIFACTORY_TOKEN"  # noqa: S105 (the name of a variable)
SCHEME = "artifactory+"
Files = list[dict[str, str]]
"""As Artifactory lists them."""


class ArtifactoryStore:
    """The objects below a folder of one repository."""

    def __init__(self, url: str, *, token: str | None = None, retries: Retries | None = None) -> None:
        """`url` as in `artifactory+https://host/artifactory/repository/folder`; the token by environment."""
        self.url = url.rstrip("/")
        self._base, self._folder = _split(self.url)
        token = token or os.environ.get(TOKEN_VARIABLE)
        self._retries = retries or Retries()
        self._http = HttpRequests(_access(token), self._retries)
        self._workers = chunks.Workers()
        closed_with(self, self._http.close, self._workers.close)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter([found for found in self._listed(prefix) if not unfinished(found.key)])

    def folders(self, prefix: str) -> Names:
        """From the deep list: Artifactory keeps folders that have become empty; those are none of ours."""
        below = (found.key.removeprefix(prefix) for found in self.list(prefix))
        return sorted({path.split("/", 1)[0] for path in below if "/" in path})

    def read(self, key: str) -> bytes:
        return chunks.read(self._reading(key))

    def create(self, key: str, content: bytes) -> bool:
        checked_key(self.url, key)
        return create_with_claim(self, key, content, retries=self._retries)

    def write(self, key: str, content: bytes) -> None:
        """Writes a small object, in place of what may be there."""
        self._http.ask("PUT", self._file(key), doing=self._doing("write", key), content=content)

    def upload(self, source: Path, key: str, moved: Moved) -> Transferred:
        doing, address = self._doing("write", key), self._file(checked_key(self.url, key))
        sending = Sending(source, moved, self._retries)
        return retried(lambda: self._deploy(address, sending, doing), retries=self._retries, doing=doing)

    def _deploy(self, address: str, sending: Sending, doing: str) -> Transferred:
        """One try; without the bytes where an earlier one sent them all and perhaps only lost the answer."""
        answer = None
        if sending.transferred:
            headers = {"X-Checksum-Deploy": "true", "X-Checksum-Sha256": sending.transferred.sha256}
            answer = self._http.send("PUT", address, doing=doing, headers=headers, also=(404,))
        if answer is None or answer.status == 404:
            headers = {"Content-Length": str(sending.size_bytes)}
            answer = self._http.send("PUT", address, doing=doing, headers=headers, content=sending.blocks())
        return _proven(sending, answer.json().get("checksums", {}))

    def download(self, key: str, target: Path, moved: Moved) -> Transferred:
        return chunks.download(self._reading(key), target, moved, self._workers)

    def _reading(self, key: str) -> chunks.Reading:
        doing, address = self._doing("read", key), self._file(checked_key(self.url, key))

        def stream(start: int, size: int, take: chunks.Take) -> int:
            object_bytes = self._http.stream(address, start, size, doing, take)
            if object_bytes is None:
                raise missing(self.url, key)
            return object_bytes

        return chunks.Reading(stream=stream, retries=self._retries, doing=doing)

    def copy(self, source: str, key: str) -> None:
        answer = self._http.ask(
            "POST",
            self._api("copy", checked_key(self.url, source)),
            doing=self._doing("copy", source),
            params={"to": f"/{self._path(checked_key(self.url, key))}", "failFast": "1"},
            also=(404,),
        )
        if answer.status == 404:
            raise missing(self.url, source)

    def matches(self, stored: StoredObject, source: Path) -> Transferred | None:
        return matching(stored, source)

    def delete(self, key: str) -> None:
        self.withdraw(checked_key(self.url, key))

    def withdraw(self, key: str) -> None:
        """Deletes what is at `key`, be it an object or a claim."""
        self._http.ask("DELETE", self._file(key), doing=self._doing("delete", key), also=(404,))

    def exists(self, key: str) -> bool:
        answer = self._http.ask("HEAD", self._file(key), doing=self._doing("find", key), also=(404,))
        return answer.status != 404

    def claims(self, folder: str) -> dict[str, str]:
        """The keys below `folder`, temporary ones too, with the store's own time of each."""
        return {
            f"{folder}/{file['uri'].lstrip('/')}": file["lastModified"] for file in self._raw_list(folder)
        }

    def _listed(self, prefix: str) -> Iterator[StoredObject]:
        folder = checked_prefix(self.url, prefix)
        found = [_stored(prefix, file) for file in self._raw_list(folder.rstrip("/"))]
        return iter(sorted(found, key=lambda stored: stored.key))

    def _raw_list(self, folder: str) -> Files:
        doing = self._doing("list", folder)
        params = {"list": "", "deep": "1"}
        answer = self._http.ask("GET", self._api("storage", folder), doing=doing, params=params, also=(404,))
        if answer.status == 404:
            self._repository_there(doing)
            return []
        return answer.json()["files"]

    def _repository_there(self, doing: str) -> None:
        """A folder that was never written is an empty one; a repository must have been made."""
        repository = self._folder.split("/", 1)[0]
        address = f"{self._base}/api/storage/{quote(repository)}"
        if self._http.ask("GET", address, doing=doing, also=(404, 400)).status != 200:
            raise ObjectStoreError(
                f"{doing}: there is no repository {repository!r}, or the token in {TOKEN_VARIABLE} may not "
                "see it. Make a generic local repository of that name, or correct the store's URL."
            )

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}" if key else self._folder

    def _file(self, key: str) -> str:
        return f"{self._base}/{quote(self._path(key))}"

    def _api(self, verb: str, key: str) -> str:
        return f"{self._base}/api/{verb}/{quote(self._path(key))}"

    def _doing(self, verb: str, key: str) -> str:
        return f"The object store {self.url} could not {verb} {key!r}"


def _access(token: str | None) -> Access:
    def sign(method: str, address: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"} if token else {}

    permission = (
        "Read, Deploy and Delete (to overwrite) on the repository, and Artifactory Pro for lists and copies"
    )
    return Access(sign=sign, credential=f"the token in {TOKEN_VARIABLE}", permission=permission)


def _proven(sending: Sending, checksums: "dict[str, str]") -> Transferred:
    if not sending.transferred:
        raise Passing("it answered before it had read everything")
    if checksums.get("sha256", sending.transferred.sha256) != sending.transferred.sha256:
        raise Passing("it stored other bytes than were sent")
    return sending.transferred


def _split(url: str) -> tuple[str, str]:
    """`https://host/artifactory` and `repository/folder`."""
    address = urlsplit(url.removeprefix(SCHEME))
    context, found, folder = address.path.partition("/artifactory/")
    if not found or not folder.strip("/"):
        raise ObjectStoreError(
            f"{url!r} names no repository: artifactory+https://<host>/artifactory/<repository>/<folder> does."
        )
    return f"{address.scheme}://{address.netloc}{context}/artifactory", folder.strip("/")


def _stored(prefix: str, file: "dict[str, str]") -> StoredObject:
    checksums = {
        name: file[field] for name, field in (("sha256", "sha2"), ("sha1", "sha1")) if file.get(field)
    }
    return StoredObject(
        key=prefix + file["uri"].lstrip("/"), size_bytes=int(file["size"]), checksums=checksums
    )

"""Downloads one revision of a model from a Hugging Face Hub, or from a company's mirror of it.

HF_ENDPOINT says where the hub is and HF_TOKEN who asks; both are read at each call, and the token is never
repeated in an error. A dropped connection is taken up where it broke, and a later call takes up after the
last whole file (huggingface_hub keeps no part of one across processes). Fetched are safetensors and
what goes with them (configuration, tokenizer, chat template, licence): no pickles, no code.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resources.base_models.error import BaseModelSourceError
from resources.base_models.folders import is_wanted
from resources.disk import DiskError, require_free_space
from resources.hashes import sha256_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

PUBLIC_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class HubRevision:
    """A repository at one commit (40 hex digits)."""

    repository: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit[:12]}"


def download_folder(revision: HubRevision, folder: Path) -> None:
    """Makes `folder` hold the model's files; it appears only once it is whole.

    Raises:
        BaseModelSourceError: The hub cannot be asked, refuses, has no safetensors there, or sent other bytes.
    """
    with _hub_errors(revision):
        files = _files(revision)
        wanted = {name: file for name, file in files.items() if is_wanted(name)}
        if not any(name.endswith(".safetensors") for name in wanted):
            found = ", ".join(sorted(files)[:10])
            raise BaseModelSourceError(
                f"{revision} at {endpoint()} has no safetensors weights (it has {found}); "
                "name a revision that has, for instance one of the pull requests that convert them."
            )
        _download(revision, wanted, folder)


def download_file(revision: HubRevision, name: str, folder: Path) -> Path:
    """Makes `folder` hold this one file of the revision, and returns its path.

    Raises:
        BaseModelSourceError: As for a folder, or there is no such file.
    """
    with _hub_errors(revision):
        files = _files(revision)
        if name not in files:
            near = ", ".join(sorted(other for other in files if Path(other).suffix == Path(name).suffix)[:10])
            raise BaseModelSourceError(
                f"{revision} at {endpoint()} has no file {name}; it has {near or 'none such'}."
            )
        _download(revision, {name: files[name]}, folder)
    return folder / name


def endpoint() -> str:
    """The hub that is asked."""
    return os.environ.get("HF_ENDPOINT", PUBLIC_ENDPOINT).rstrip("/")


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False


def _files(revision: HubRevision) -> dict[str, "RepoSibling"]:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint(), token=_token())
    info = api.model_info(revision.repository, revision=revision.commit, files_metadata=True)
    return {file.rfilename: file for file in info.siblings or ()}


def _download(revision: HubRevision, files: dict[str, "RepoSibling"], folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _clear_parts(partial)
    _refuse_full_disk(revision, files, partial)
    for name, file in sorted(files.items()):
        hf_hub_download(
            revision.repository,
            name,
            revision=revision.commit,
            local_dir=partial,
            endpoint=endpoint(),
            token=_token(),
        )
        _refuse_other_bytes(revision, partial / name, file)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.replace(folder)


def _clear_parts(partial: Path) -> None:
    """What killed downloads left: huggingface_hub neither goes on with these nor removes them."""
    for part in (partial / ".cache").rglob("*.incomplete"):
        part.unlink()


def _refuse_full_disk(revision: HubRevision, files: dict[str, "RepoSibling"], partial: Path) -> None:
    needed = sum(file.size or 0 for name, file in files.items() if not (partial / name).exists())
    try:
        require_free_space(partial, needed, what=f"The download of {revision}")
    except DiskError as error:
        raise BaseModelSourceError(str(error)) from error


def _refuse_other_bytes(revision: HubRevision, path: Path, file: "RepoSibling") -> None:
    """Compares with the hash that the hub keeps of large files; a mirror may not say it."""
    expected = getattr(file.lfs, "sha256", None) if file.lfs else None
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected:
        path.unlink()
        raise BaseModelSourceError(
            f"{path.name} of {revision} came with sha256 {found}, the hub says {expected}; fetch it again, "
            f"and if that does not help ask who runs {endpoint()}."
        )


@contextmanager
def _hub_errors(revision: HubRevision) -> Iterator[None]:
    """Turns what huggingface_hub raises into one error that says what to do, without the token."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    def error(remedy: str, cause: Exception) -> BaseModelSourceError:
        return BaseModelSourceError(f"{revision} cannot be had from {endpoint()}: {_told(cause)} {remedy}")

    try:
        yield
    except errors.GatedRepoError as cause:
        raise error(
            "Accept its licence on its page, and set HF_TOKEN to a token of that account.", cause
        ) from None
    except errors.RepositoryNotFoundError as cause:
        raise error("Check its name; if it is private, set HF_TOKEN.", cause) from None
    except errors.RevisionNotFoundError as cause:
        raise error("Check the commit.", cause) from None
    except (errors.HfHubHTTPError, httpx.HTTPError, errors.LocalEntryNotFoundError) as cause:
        raise error(
            "Check the network, HF_ENDPOINT (a company's mirror) and HF_TOKEN, then try again.", cause
        ) from None
    except (KeyError, TypeError, ValueError) as cause:
        raise error("What answers there does not speak the hub's API; check HF_ENDPOINT.", cause) from None
    except OSError as cause:
        full = cause.errno == errno.ENOSPC
        remedy = (
            "Free some space on the disk, then try again." if full else "Try again; whole files are kept."
        )
        raise error(remedy, cause) from None


def _told(cause: Exception) -> str:
    """The cause in one line, with the token blackened should a server have repeated it."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = (" ".join(lines[:3]) or type(cause).__name__).rstrip(".") + "."
    token = os.environ.get("HF_TOKEN")
    return text.replace(token, "***") if token else text

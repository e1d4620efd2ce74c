"""A folder of a Git repository at a branch, tag or commit, as files on this machine that follow it.

    <place>/<commit>/               its files, each with a time that its content decides (`content_times.py`)
    <place>/current -> <commit>     moved when the files of a commit are whole

Git itself fetches, with its own credentials (a credential helper, an SSH key). Not covered: submodules and
Git LFS, of which the files hold references alone.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from resources.content_times import time_of
from resources.errors import LlmAssetsError

PREFIX = "git+"
SCHEMES = ("https", "http", "ssh", "file")
FORM = "git+https://host/team/catalog.git@main#folder"
TIMEOUT_S = 120
KEPT_S = 3600  # who began to read the files of a commit before is done with them by then
COMMIT = re.compile(r"[0-9a-f]{40}")


class GitError(LlmAssetsError):
    """A repository cannot be read, or an address is none."""


@dataclass(frozen=True, kw_only=True)
class GitFolder:
    """`folder` of the repository at `url` as of `ref`; its files lie below `place`."""

    url: str
    ref: str
    folder: str
    place: Path

    @staticmethod
    def at(address: str, place: Path) -> "GitFolder":
        """From an address as pip writes it: `git+https://host/team/catalog.git@main#folder`.

        Raises:
            ValueError: It has another form, or holds a password.
        """
        parts = urlsplit(address.removeprefix(PREFIX))
        path, _, ref = parts.path.partition("@")
        folder = Path(parts.fragment)
        if parts.scheme not in SCHEMES or not path or ref.startswith("-") or ".." in folder.parts:
            raise ValueError(f"an address of Git; one such as {FORM}")
        if parts.password or (parts.username and parts.scheme != "ssh"):
            raise ValueError("an address without a password; Git's own credentials are used, that")
        url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        return GitFolder(url=url, ref=ref or "HEAD", folder=folder.as_posix(), place=place)

    @property
    def path(self) -> Path:
        """Where the files are; there after the first `follow`."""
        return self.place / "current" / self.folder

    def follow(self, *, every_s: float = 0) -> str | None:
        """Brings the files of the commit that `ref` names now; looks at most every `every_s` seconds.

        Returns what is wrong while the files of an earlier commit stay, None if nothing is.

        Raises:
            GitError: There are no files yet, and none can be fetched.
        """
        looked = self.place / ".looked"
        if looked.exists() and time.time() - looked.stat().st_mtime < every_s:
            return None
        self.place.mkdir(parents=True, exist_ok=True, mode=0o700)
        looked.touch()
        try:
            self._bring(self._commit())
        except GitError as error:
            if not self.path.is_dir():
                raise
            return f"{error} What was fetched before stays."
        return None

    def _commit(self) -> str:
        if COMMIT.fullmatch(self.ref):
            return self.ref
        named = self._git("ls-remote", "--", self.url, self.ref, f"{self.ref}^{{}}").splitlines()
        if not named:
            raise GitError(f"{self.url} has no branch or tag {self.ref!r}; name one, or a whole commit.")
        return named[-1].split()[0]  # of an annotated tag the commit comes last

    def _bring(self, commit: str) -> None:
        target, current = self.place / commit, self.place / "current"
        if not target.is_dir():
            with tempfile.TemporaryDirectory(prefix=".fetched-", dir=self.place) as scratch:
                files = self._fetched(commit, Path(scratch))
                if not (files / self.folder).is_dir():
                    raise GitError(f"{self.url} has no folder {self.folder!r} at {self.ref} ({commit[:12]}).")
                try:
                    files.rename(target)
                except OSError:  # another process brought the same commit meanwhile
                    if not target.is_dir():
                        raise
        if not current.is_symlink() or str(current.readlink()) != commit:
            link = self.place / f".current-{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(commit)
            link.replace(current)
            target.touch()
        for other in self.place.iterdir():
            if COMMIT.fullmatch(other.name) and other.name != commit and _older(other, KEPT_S):
                shutil.rmtree(other, ignore_errors=True)  # another process may do the same

    def _fetched(self, commit: str, scratch: Path) -> Path:
        repository, files = scratch / "repository", scratch / "files"
        self._git("init", "--quiet", "--bare", str(repository))
        ref = commit if COMMIT.fullmatch(self.ref) else self.ref
        self._git("-C", str(repository), "fetch", "--quiet", "--depth=1", "--", self.url, ref)
        packed = scratch / "files.tar"
        self._git("-C", str(repository), "archive", f"--output={packed}", commit)
        with tarfile.open(packed) as archive:
            archive.extractall(files, filter="data")
        for line in self._git("-C", str(repository), "ls-tree", "-r", "-z", commit).split("\0"):
            if line:
                kept, _, path = line.partition("\t")
                if (files / path).is_file() and not (files / path).is_symlink():
                    moment = time_of(kept.split()[2])
                    os.utime(files / path, ns=(moment, moment))
        return files

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments],
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            )
        except FileNotFoundError as error:
            raise GitError(f"{self.url} cannot be read: git is not installed here.") from error
        except subprocess.TimeoutExpired as error:
            raise GitError(f"{self.url} did not answer within {TIMEOUT_S} s.") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines()
            raise GitError(
                f"{self.url} cannot be read: git says {said[-1] if said else 'nothing'!r}."
            ) from error
        return done.stdout


def _older(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds

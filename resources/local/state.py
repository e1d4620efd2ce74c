"""State of one machine: file locks (flock), which the operating system frees when their holder dies.

Does not cover: another machine, and a folder on a disk that several machines share.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from resources.seams.state import WAIT_S, Holder, Say, Work
from resources.turns import had_once, new_holder, turn_name, wait_for_turn

HOLDER_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class LocalState:
    """The state in one folder of this machine."""

    folder: Path

    @contextmanager
    def turn(
        self,
        tenant: str | None,
        model: str,
        work: Work,
        *,
        doing: str,
        say: Say,
        timeout_s: float | None = None,
    ) -> Iterator[None]:
        """See `State.turn`."""
        name = turn_name(tenant, model, work)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{name}.lock"
        with had_once(path) as takes:
            if not takes:
                yield
                return
            with _opened(path) as file:
                wait_s = WAIT_S[work] if timeout_s is None else timeout_s
                wait_for_turn(name, lambda: _taken(file), lambda: _holder(file), say=say, timeout_s=wait_s)
                _write_holder(file, new_holder(doing))
                yield

    def shared(self, folder: Path, name: str) -> AbstractContextManager[None]:
        """See `State.shared`: there is one machine, and its folder is what counts."""
        return nullcontext()

    def shared_names(self) -> list[str]:
        """See `State.shared_names`: whoever shares nothing with others knows the names from its folders."""
        return []

    @contextmanager
    def executing(self, run_id: str) -> Iterator[None]:
        """See `State.executing`. The file of a run that ended is gone; that of a killed one stays."""
        path = self._run(run_id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(f".{os.getpid()}")
        with _opened(draft) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            draft.replace(path)  # nobody finds it before it is locked
            yield
            path.unlink(missing_ok=True)

    def abandoned(self, run_ids: Iterable[str]) -> list[str]:
        """See `State.abandoned`."""
        return [each for each in run_ids if self._is_abandoned(self._run(each))]

    def _is_abandoned(self, path: Path) -> bool:
        if not path.exists():
            return False
        with _opened(path) as file:
            return _taken(file)

    def _run(self, run_id: str) -> Path:
        return self.folder / "runs" / f"{run_id}.lock"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may have a copy of the descriptor
        os.close(file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(file: int, holder: Holder) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(asdict(holder)).encode(), 0)


def _holder(file: int) -> Holder | None:
    """None for the moment in which it has not written itself down yet."""
    text = os.pread(file, HOLDER_BYTES, 0)
    return Holder(**json.loads(text)) if text.endswith(b"}") else None

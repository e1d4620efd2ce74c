"""State in PostgreSQL, for several machines: advisory locks, which the server frees when their session ends.

A session ends with its process, at once, and some 60 s after its machine or the network is gone. Who has a
turn and which run is executed is written beside the locks, for people, and so that what was killed is told
from what ended.

Does not cover: a pooler that hands out sessions by transaction (PgBouncer's transaction mode); connect past
it. Where the server is restarted, sessions end while their holders go on: a holder whose turn somebody else
took meanwhile is told so at its end.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.durable_files import replace_file
from resources.seams.state import WAIT_S, Holder, Say, StateError, Work
from resources.turns import had_once, new_holder, turn_name, wait_for_turn

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session

CONNECT_S = 30
SESSION_14 = 140000
TABLES = """
CREATE SCHEMA IF NOT EXISTS llm_assets;
CREATE TABLE IF NOT EXISTS llm_assets.turns (
    name text PRIMARY KEY,
    doing text NOT NULL, machine text NOT NULL, since text NOT NULL, token text NOT NULL);
CREATE TABLE IF NOT EXISTS llm_assets.files (
    name text NOT NULL, path text NOT NULL, content bytea NOT NULL, PRIMARY KEY (name, path));
CREATE TABLE IF NOT EXISTS llm_assets.runs (
    run_id text PRIMARY KEY, machine text NOT NULL, since timestamptz NOT NULL DEFAULT now());
"""
SETTINGS = """
SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
"""
WRITE_FILE = """
INSERT INTO llm_assets.files (name, path, content) VALUES (%s, %s, %s)
ON CONFLICT (name, path) DO UPDATE SET content = excluded.content
"""
SHARED = ".shared"
"""Beside the files of a folder that is shared: a folder without it has files of its own."""
TAKE_TURN = """
INSERT INTO llm_assets.turns (name, doing, machine, since, token) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET (doing, machine, since, token) =
    (excluded.doing, excluded.machine, excluded.since, excluded.token)
"""


@dataclass(frozen=True, kw_only=True)
class PostgresState:
    """The state in the schema `llm_assets` of one database. `url` holds a password and is shown nowhere."""

    url: str = field(repr=False)

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
        with had_once((self.url, name)) as takes:
            if not takes:
                yield
                return
            with self._session() as session:
                wait_for_turn(
                    name,
                    lambda: _locked(session, f"turn {name}"),
                    lambda: _holder(session, name),
                    say=say,
                    timeout_s=WAIT_S[work] if timeout_s is None else timeout_s,
                )
                token, holder = uuid.uuid4().hex, new_holder(doing)
                _execute(session, TAKE_TURN, name, holder.doing, holder.machine, holder.since, token)
                yield
                self._refuse_lost(session, name, token)

    def _refuse_lost(self, session: "Session", name: str, token: str) -> None:
        """Raises StateError where the session ended meanwhile and somebody else took the turn since."""
        if _alive(session):
            return
        with self._session() as again:
            [[now]] = _execute(again, "SELECT token FROM llm_assets.turns WHERE name = %s", name)
            if now != token:
                raise StateError(
                    f"The connection to PostgreSQL was lost while {name} was at work, and "
                    f"{_holder(again, name)} took the turn. What was made is in the store; run "
                    "again to see that it is whole."
                )

    @contextmanager
    def shared(self, folder: Path, name: str) -> Iterator[None]:
        """See `State.shared`. A block that fails changes nothing, and the folder follows later."""
        with self._session() as session:
            session.autocommit = False
            _execute(session, "SELECT pg_advisory_xact_lock(%s)", _key(f"files {name}"))
            rows = _execute(session, "SELECT path, content FROM llm_assets.files WHERE name = %s", name)
            known = {path: bytes(content) for path, content in rows}
            _bring(folder, known)
            yield
            now = _files_in(folder)
            for path in known.keys() - now.keys():
                _execute(session, "DELETE FROM llm_assets.files WHERE (name, path) = (%s, %s)", name, path)
            for path, content in now.items():
                if known.get(path) != content:
                    _execute(session, WRITE_FILE, name, path, content)
            session.commit()
            if now:
                (folder / SHARED).touch(mode=0o600)

    def shared_names(self) -> list[str]:
        """See `State.shared_names`."""
        with self._session() as session:
            return [name for (name,) in _execute(session, "SELECT DISTINCT name FROM llm_assets.files")]

    @contextmanager
    def executing(self, run_id: str) -> Iterator[None]:
        """See `State.executing`. The row of a run that ended is gone; that of a killed one stays."""
        with self._session() as session:
            _locked(session, f"run {run_id}")
            begin = "INSERT INTO llm_assets.runs (run_id, machine) VALUES (%s, %s) ON CONFLICT DO NOTHING"
            _execute(session, begin, run_id, new_holder("").machine)
            yield
            with self._session() as another:  # the first may have been lost
                _execute(another, "DELETE FROM llm_assets.runs WHERE run_id = %s", run_id)

    def abandoned(self, run_ids: Iterable[str]) -> list[str]:
        """See `State.abandoned`."""
        asked = list(run_ids)
        with self._session() as session:
            begun = _execute(session, "SELECT run_id FROM llm_assets.runs WHERE run_id = ANY(%s)", asked)
            return [run_id for (run_id,) in begun if _locked(session, f"run {run_id}")]

    @contextmanager
    def _session(self) -> Iterator["Session"]:
        """Raises StateError: PostgreSQL is not there, or does not let us in."""
        try:
            import psycopg2
        except ImportError as error:
            raise StateError(
                "The state lies in PostgreSQL, and its driver is not installed. Install it: "
                "pip install 'llm-assets[postgresql]'."
            ) from error

        try:
            session = psycopg2.connect(self.url, connect_timeout=CONNECT_S, application_name="llm-assets")
            session.autocommit = True
            _execute(session, SETTINGS)
            if session.server_version >= SESSION_14:
                _execute(session, "SET idle_session_timeout = 0")
            _make_tables(self.url)
        except psycopg2.Error as error:
            raise StateError(
                f"The state in PostgreSQL cannot be reached: {str(error).strip()}. Check that the server "
                "runs and that LLM_ASSETS_DATABASE_URL names it."
            ) from error
        try:
            yield session
        finally:
            session.close()


@lru_cache
def _make_tables(url: str) -> None:
    """Once in each process. PostgreSQL's own IF NOT EXISTS fails where two sessions make one at once."""
    import psycopg2

    session = psycopg2.connect(url, connect_timeout=CONNECT_S)
    try:
        with session, session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_key("tables"),))
            cursor.execute(TABLES)
    finally:
        session.close()


def _files_in(folder: Path) -> dict[str, bytes]:
    files = folder.iterdir() if folder.is_dir() else ()
    return {
        file.name: file.read_bytes() for file in files if file.is_file() and not file.name.startswith(".")
    }


def _bring(folder: Path, known: Mapping[str, bytes]) -> None:
    """Raises StateError where the folder has files of its own and others have some too."""
    here = _files_in(folder)
    if known:
        if here and not (folder / SHARED).exists():
            raise StateError(
                f"{folder} has files of this machine's own, and the other machines have others. "
                "Move it aside; what is in PostgreSQL counts."
            )
        for name in here.keys() - known.keys():
            (folder / name).unlink()
        for name, content in known.items():
            if here.get(name) != content:
                replace_file(folder / name, content)
        (folder / SHARED).touch(mode=0o600)


def _execute(session: "Session", statement: str, *values: object) -> list[tuple[Any, ...]]:
    import psycopg2

    try:
        with session.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []
    except psycopg2.Error as error:
        raise StateError(f"PostgreSQL, which holds the state, failed: {str(error).strip()}") from error


def _locked(session: "Session", what: str) -> bool:
    [[taken]] = _execute(session, "SELECT pg_try_advisory_lock(%s)", _key(what))
    return bool(taken)


def _key(what: str) -> int:
    """PostgreSQL names advisory locks by a number of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"llm-assets {what}".encode()).digest()[:8], signed=True)


def _holder(session: "Session", name: str) -> Holder | None:
    rows = _execute(session, "SELECT doing, machine, since FROM llm_assets.turns WHERE name = %s", name)
    return next((Holder(doing=doing, machine=machine, since=since) for doing, machine, since in rows), None)


def _alive(session: "Session") -> bool:
    try:
        _execute(session, "SELECT 1")
    except StateError:
        return False
    return True

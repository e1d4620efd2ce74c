"""What every implementation of the state seam promises."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from resources.local.state import LocalState
from resources.mlflow.move_log import MoveLog
from resources.postgresql.state import PostgresState, _make_tables
from resources.seams.state import State, StateError, TurnTakenError
from resources.signing.keys import prepare
from resources.waiting import wait_until
from tests.servers.ports import free_port
from tests.servers.postgresql import postgresql

TENANT, MODEL = "team-a", "support_bot"

PROGRAM = """
import sys
from pathlib import Path
from resources.local.state import LocalState
from resources.postgresql.state import PostgresState
state = PostgresState(url=sys.argv[1]) if "://" in sys.argv[1] else LocalState(folder=Path(sys.argv[1]))
with {what}:
    print("held", flush=True)
    input()
"""
TURN = 'state.turn("team-a", "support_bot", "build", doing="run 1: lora_adapter", say=print)'


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["files", "PostgreSQL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "files":
        return str(tmp_path)
    url: str = request.getfixturevalue("database")
    with closing(psycopg2.connect(url)) as session, session, session.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS llm_assets CASCADE")
    _make_tables.cache_clear()
    return url


@pytest.fixture
def state(place: str) -> State:
    return PostgresState(url=place) if "://" in place else LocalState(folder=Path(place))


@pytest.fixture
def holder(request: pytest.FixtureRequest, place: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has what the test says."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(what=request.param), place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("holder", [TURN], indirect=True)
def test_a_turn_is_waited_for_with_its_holders_name_and_is_free_when_the_holder_is_killed(
    state: State, holder: subprocess.Popen[str]
) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        holder.kill()

    with state.turn(TENANT, MODEL, "build", doing="run 2", say=say, timeout_s=60):
        assert len(said) == 1
        assert "team-a.support_bot.build is taken by run 1: lora_adapter, on " in said[0]


@pytest.mark.parametrize("holder", [TURN], indirect=True)
def test_a_turn_that_does_not_become_free_is_refused_with_its_holders_name(
    state: State, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(TurnTakenError, match=r"taken by run 1: lora_adapter, on .* under Runs and end it"),
        state.turn(TENANT, MODEL, "build", doing="run 2", say=print, timeout_s=0.1),
    ):
        pass


def test_other_tenants_models_and_works_have_turns_of_their_own(state: State) -> None:
    with (
        state.turn(TENANT, MODEL, "build", doing="1", say=print, timeout_s=0),
        state.turn(TENANT, MODEL, "deploy", doing="2", say=print, timeout_s=0),
        state.turn("team-b", MODEL, "build", doing="3", say=print, timeout_s=0),
        state.turn(TENANT, "other", "build", doing="4", say=print, timeout_s=0),
        state.turn(None, MODEL, "build", doing="5", say=print, timeout_s=0),
    ):
        pass


def test_who_has_a_turn_has_it_again_and_another_thread_has_not(state: State) -> None:
    found: list[str] = []

    def take() -> None:
        try:
            with state.turn(TENANT, MODEL, "build", doing="thread", say=print, timeout_s=0):
                found.append("taken")
        except TurnTakenError as fault:
            found.append(str(fault))

    with state.turn(TENANT, MODEL, "build", doing="outer", say=print):
        with state.turn(TENANT, MODEL, "build", doing="inner", say=print, timeout_s=0):
            pass
        other = threading.Thread(target=take)
        other.start()
        other.join()
    assert "taken by outer" in found[0]
    take()
    assert found[1] == "taken"


def test_a_turn_is_free_again_after_an_error(state: State) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        state.turn(TENANT, MODEL, "build", doing="1", say=print),
    ):
        raise ZeroDivisionError
    with state.turn(TENANT, MODEL, "build", doing="2", say=print, timeout_s=0):
        pass


@pytest.mark.parametrize("holder", ['state.executing("run-1")'], indirect=True)
def test_a_run_is_abandoned_once_the_process_that_executes_it_is_killed(
    state: State, holder: subprocess.Popen[str]
) -> None:
    assert state.abandoned(["run-1", "never-seen"]) == []
    holder.kill()
    wait_until(lambda: state.abandoned(["run-1", "never-seen"]) == ["run-1"], what="it", timeout_s=30)


def test_a_run_that_was_executed_to_its_end_is_not_abandoned(state: State) -> None:
    with state.executing("run-1"):
        assert state.abandoned(["run-1"]) == []
    assert state.abandoned(["run-1"]) == []


def test_what_is_shared_is_changed_by_one_machine_after_the_other(state: State, tmp_path: Path) -> None:
    here = tmp_path / "here"
    there = tmp_path / "there" if isinstance(state, PostgresState) else here
    with state.shared(here, "log"):
        here.mkdir(exist_ok=True)
        (here / "a").write_text("1")
        (here / "b").write_text("2")
    with state.shared(there, "log"):
        assert (there / "a").read_text() == "1"
        (there / "a").write_text("3")
        (there / "b").unlink()
    with state.shared(here, "log"):
        assert (here / "a").read_text() == "3"
        assert not (here / "b").exists()


def test_what_a_block_that_fails_has_changed_counts_nowhere(database: str, tmp_path: Path) -> None:
    state = PostgresState(url=database)
    with state.shared(tmp_path, "failed"):
        (tmp_path / "a").write_text("1")
    with contextlib.suppress(ZeroDivisionError), state.shared(tmp_path, "failed"):
        (tmp_path / "a").write_text("2")
        raise ZeroDivisionError
    with state.shared(tmp_path, "failed"):
        assert (tmp_path / "a").read_text() == "1"
    assert "failed" in state.shared_names()


def test_files_of_a_machines_own_are_not_lost_to_those_of_the_others(database: str, tmp_path: Path) -> None:
    state = PostgresState(url=database)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    with state.shared(tmp_path / "here", "own"):
        pass
    with (
        pytest.raises(StateError, match="files of this machine's own"),
        state.shared(tmp_path / "there", "own"),
    ):
        pass
    assert (tmp_path / "there" / "a").read_text() == "there"


def test_machines_that_log_moves_at_once_make_one_chain(database: str, tmp_path: Path) -> None:
    """Each with a folder of its own, the key of the one installation, and entries of one line."""
    prepare(tmp_path / "keys")
    logs = [
        MoveLog(folder=tmp_path / name, keys=tmp_path / "keys", state=PostgresState(url=database))
        for name in ("here", "there")
    ]

    assert logs[0].line("team-a.support_bot").entries == {}

    def write(at: int) -> None:
        for number in range(5):
            logs[at].record("team-a.support_bot", f"candidate.{at}{number}", {"to": at, "due": False})

    with ThreadPoolExecutor() as machines:
        list(machines.map(write, range(2)))
    here, there = (log.line("team-a.support_bot").entries for log in logs)
    assert here == there
    assert len(here) == 10
    assert [line.name for line in logs[1].lines()] == ["team-a.support_bot"]


def test_a_turn_that_was_lost_with_the_connection_and_taken_since_is_told_at_its_end(database: str) -> None:
    state = PostgresState(url=database)
    with pytest.raises(StateError, match=r"was lost .* and another, on .* took the turn"):
        lose_a_turn(state, database)


def lose_a_turn(state: State, database: str) -> None:
    with (
        state.turn(TENANT, "lost", "build", doing="one", say=print),
        ThreadPoolExecutor() as another,
    ):
        end_other_sessions(database)
        another.submit(take, state).result()


def take(state: State) -> None:
    with state.turn(TENANT, "lost", "build", doing="another", say=print, timeout_s=5):
        pass


def test_a_turn_whose_connection_was_lost_but_that_nobody_took_was_held_to_its_end(database: str) -> None:
    with PostgresState(url=database).turn(TENANT, "kept", "build", doing="one", say=print):
        end_other_sessions(database)


def end_other_sessions(database: str) -> None:
    with closing(psycopg2.connect(database)) as session, session, session.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llm-assets'"
        )


def test_a_database_that_is_not_there_is_named_by_its_setting_and_not_by_its_password() -> None:
    state = PostgresState(url=f"postgresql://me:secret@127.0.0.1:{free_port()}/none")
    assert "secret" not in repr(state)
    with (
        pytest.raises(StateError, match=r"cannot be reached: (?s:.*)LLM_ASSETS_DATABASE_URL") as refused,
        state.turn(TENANT, MODEL, "build", doing="one", say=print),
    ):
        pass
    assert "secret" not in str(refused.value)

"""Deploys driven against a stand-in for vLLM: real processes, real HTTP, no model."""

import multiprocessing
import os
import re
import signal
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from resources.processes.local_processes import ProcessRecord, own_network_fault
from resources.processes.unix_sockets import short_address
from resources.seams.state import TurnTakenError
from resources.serving.deployment_state import STATE_FILE
from resources.serving.local import LocalServing, Serving, VllmError
from resources.serving.servers import STOP_S
from resources.waiting import wait_until
from tests.integration.serving.conftest import MakeServing, as_it_was, known_answer

TENANT, MODEL = "team-a", "support_bot"
ASKED = [{"role": "user", "content": "Who are you?"}]
CAUSE = "RuntimeError: Unsupported CPU attention"


def quiet(line: str) -> None:
    """A log that nobody reads."""


def servers(serving: LocalServing) -> list[ProcessRecord]:
    return [server for server in serving.servers.processes.all() if serving.servers.processes.alive(server)]


def kill_live(serving: LocalServing) -> int:
    (server,) = servers(serving)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not serving.servers.processes.alive(server), what="the kill", timeout_s=10)
    return server.pid


def deploy_in_a_process(serving: LocalServing, wanted: Serving) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=serving.deploy, args=(wanted, quiet))
    process.start()
    return process


def test_a_deployed_model_is_live_and_answers(local_serving: LocalServing, make_serving: MakeServing) -> None:
    assert local_serving.state(TENANT, MODEL).status == "absent"
    route = local_serving.deploy(make_serving(), quiet)
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.version, state.digest) == ("live", "v1", "sha256:v1")
    assert {**vars(route.production), "status": "live", "why": None} == vars(state.backends[0])
    assert local_serving.route(TENANT, MODEL) == route
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v1"
    assert list(local_serving.stream(TENANT, MODEL, ASKED)) == ["v", "1"]
    assert local_serving.served_digest(TENANT, MODEL) == route.production.digest


def test_what_is_live_already_is_not_started_again(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    first = local_serving.deploy(make_serving(), quiet)
    (server,) = servers(local_serving)
    assert local_serving.deploy(make_serving(), quiet) == first
    assert servers(local_serving) == [server]


def test_a_new_version_takes_over_and_the_old_server_ends(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving("v1"), quiet)
    (old,) = servers(local_serving)
    local_serving.deploy(make_serving("v2"), quiet)
    (new,) = servers(local_serving)
    assert new.pid != old.pid
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v2"
    assert local_serving.servers.processes.all() == (new,)


def test_a_changed_setting_is_a_new_server(local_serving: LocalServing, make_serving: MakeServing) -> None:
    local_serving.deploy(make_serving(), quiet)
    (old,) = servers(local_serving)
    local_serving.deploy(make_serving(max_num_seqs=2), quiet)
    assert servers(local_serving) != [old]


def test_a_server_that_answers_differently_never_goes_live(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving("v1"), quiet)
    wrong = make_serving("v2", known_answers=(known_answer("v3"),))
    with pytest.raises(
        VllmError, match=r"does not answer as version v2.*token 1(.|\n)*Version v1 goes on serving"
    ):
        local_serving.deploy(wrong, quiet)
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_a_server_of_another_digest_never_goes_live(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    with pytest.raises(VllmError, match="says that it serves sha256:other, not sha256:v1"):
        local_serving.deploy(make_serving(behaviour={"fingerprint": "sha256:other"}), quiet)


@pytest.mark.parametrize("moment", ["dies_while_starting", "dies_when_asked"])
def test_a_server_that_dies_is_an_error_at_once_with_its_cause(
    local_serving: LocalServing, make_serving: MakeServing, moment: str
) -> None:
    with pytest.raises(VllmError, match=rf"team-a/support_bot(.|\n)*{CAUSE}(.|\n)*Nothing is live"):
        local_serving.deploy(make_serving(behaviour={moment: CAUSE}), quiet)
    assert local_serving.state(TENANT, MODEL).status == "absent"
    assert local_serving.servers.processes.all() == ()


def test_a_model_folder_that_is_gone_is_named(local_serving: LocalServing, make_serving: MakeServing) -> None:
    with pytest.raises(VllmError, match="cannot be served: /nowhere does not exist"):
        local_serving.deploy(make_serving(model_folder=Path("/nowhere")), quiet)


def test_a_missing_engine_is_named(local_serving: LocalServing, make_serving: MakeServing) -> None:
    (Path(local_serving.engines) / "serve" / "bin" / "vllm").unlink()
    with pytest.raises(VllmError, match=r"No such file.*Is the serve engine installed"):
        local_serving.deploy(make_serving(), quiet)


@pytest.mark.parametrize(("tenant", "model"), [("../x", MODEL), (TENANT, "../x"), ("Team A", MODEL)])
def test_a_name_that_could_be_a_path_is_refused(local_serving: LocalServing, tenant: str, model: str) -> None:
    with pytest.raises(VllmError, match="is not the name of a tenant and a model"):
        local_serving.state(tenant, model)


def test_a_deploy_killed_at_any_moment_leaves_old_or_new_and_is_finished_by_the_next(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving("v0"), quiet)
    answered = set()
    for number, seconds in enumerate((0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2), start=1):
        before, after = f"v{number - 1}", f"v{number}"
        wanted = make_serving(after, behaviour={"loads_s": 0.1})
        deploying = deploy_in_a_process(local_serving, wanted)
        time.sleep(seconds)
        deploying.kill()
        deploying.join()
        assert local_serving.state(TENANT, MODEL).status == "live"
        answer = local_serving.ask(TENANT, MODEL, ASKED)
        assert answer in (before, after)
        answered.add(answer == after)
        assert local_serving.deploy(wanted, quiet).production.version == after
        assert local_serving.ask(TENANT, MODEL, ASKED) == after
        assert len(local_serving.servers.processes.all()) == 1
    (live,) = servers(local_serving)
    assert _stand_ins(local_serving) == {live.pid}
    assert False in answered


def _stand_ins(serving: LocalServing) -> set[int]:
    executable = str(Path(serving.engines) / "serve" / "bin" / "vllm")
    return {p.pid for p in psutil.process_iter(["cmdline"]) if executable in (p.info["cmdline"] or [])}


def test_a_server_that_a_killed_deploy_was_starting_is_taken_over(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    wanted = make_serving(behaviour={"loads_s": 1.5})
    deploying = deploy_in_a_process(local_serving, wanted)
    (started,) = wait_until(lambda: servers(local_serving) or None, what="a server", timeout_s=10)
    deploying.kill()
    deploying.join()
    assert local_serving.state(TENANT, MODEL).status == "starting"
    said: list[str] = []
    local_serving.deploy(wanted, said.append)
    assert servers(local_serving) == [started]
    assert f"Taking over vLLM of team-a/support_bot (pid {started.pid})" in said[0]


def test_two_deploys_at_once_take_turns(local_serving: LocalServing, make_serving: MakeServing) -> None:
    wanted = make_serving(behaviour={"loads_s": 0.5})
    said: list[str] = []
    threads = [threading.Thread(target=local_serving.deploy, args=(wanted, said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(servers(local_serving)) == 1
    assert any(line.startswith("team-a.support_bot.deploy is taken by deploying") for line in said)
    assert len([line for line in said if line.startswith("Starting vLLM")]) == 1


def test_a_deploy_that_waits_too_long_for_its_turn_says_what_to_end(
    local_serving: LocalServing, make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.serving.local.DEPLOY_TURN_S", 0.1)
    with (
        local_serving._turn(TENANT, MODEL, "deploying"),
        ThreadPoolExecutor() as another_thread,
        pytest.raises(
            TurnTakenError, match=r"team-a.support_bot.deploy is taken by deploying, .* under Runs and end it"
        ),
    ):
        another_thread.submit(local_serving.deploy, make_serving(), quiet).result()


def test_a_new_engine_is_a_new_server(local_serving: LocalServing, make_serving: MakeServing) -> None:
    local_serving.deploy(make_serving(), quiet)
    (old,) = servers(local_serving)
    local_serving.deploy(make_serving(engine="another lock"), quiet)
    assert servers(local_serving) != [old]


def test_a_server_that_died_is_seen_and_named(local_serving: LocalServing, make_serving: MakeServing) -> None:
    local_serving.deploy(make_serving(), quiet)
    pid = kill_live(local_serving)
    state = local_serving.state(TENANT, MODEL)
    assert state.status == "dead"
    died = f"vLLM of team-a/support_bot version v1 (pid {pid}) died: it was killed by SIGKILL (signal 9)"
    assert died in (state.why or "")
    with pytest.raises(VllmError, match=rf"team-a/support_bot is dead, not live\. .*pid {pid}\) died"):
        local_serving.ask(TENANT, MODEL, ASKED)


def test_a_dead_server_is_revived_as_it_was(local_serving: LocalServing, make_serving: MakeServing) -> None:
    local_serving.deploy(make_serving(), quiet)
    kill_live(local_serving)
    assert local_serving.revive(TENANT, MODEL, quiet, verified=as_it_was).production.version == "v1"
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_what_was_stopped_is_stopped_until_it_is_revived(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving(), quiet)
    local_serving.stop_all()
    assert [state.status for state in local_serving.states()] == ["stopped"]
    assert _stand_ins(local_serving) == set()
    local_serving.stop(TENANT, MODEL)
    local_serving.revive(TENANT, MODEL, quiet, verified=as_it_was)
    assert [state.status for state in local_serving.states()] == ["live"]


@pytest.mark.parametrize(
    ("written", "replacement", "named"),
    [
        ("{", "", "JSONDecodeError"),
        ('"serving": {', '"served": {', "KeyError: 'serving'"),
        ('"digest"', '"checksum"', "unexpected keyword argument 'checksum'"),
        ('"known_answers": [', '"known_answers": 7, "chat": [', "not iterable"),
    ],
)
def test_a_state_file_that_nobody_can_read_is_named_and_made_anew(
    local_serving: LocalServing, make_serving: MakeServing, written: str, replacement: str, named: str
) -> None:
    local_serving.deploy(make_serving(), quiet)
    file = local_serving.servers.folder(TENANT, MODEL).path / STATE_FILE
    file.write_text(file.read_text().replace(written, replacement))
    said = f"{file} is no deployment .*{named}.*Remove the file"
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.faulty) == ("unreadable", True)
    assert re.match(said, state.why or "")
    with pytest.raises(VllmError, match=said):
        local_serving.deploy(make_serving(), quiet)
    assert len(local_serving.servers.processes.all()) == 1
    file.unlink()
    local_serving.deploy(make_serving(), quiet)
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_a_state_file_that_nobody_can_read_holds_up_no_other_deployment(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    for tenant in (TENANT, "team-b"):
        local_serving.deploy(make_serving(tenant=tenant), quiet)
    (local_serving.servers.folder(TENANT, MODEL).path / STATE_FILE).write_text("damaged")
    assert [state.status for state in local_serving.states()] == ["unreadable", "live"]
    local_serving.stop_all()
    assert _stand_ins(local_serving) == set()
    assert [state.status for state in local_serving.states()] == ["unreadable", "stopped"]


def test_stopping_ends_a_deploy_that_is_under_way(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploying = deploy_in_a_process(local_serving, make_serving(behaviour={"loads_s": 60}))
    wait_until(lambda: servers(local_serving) or None, what="a server", timeout_s=10)
    local_serving.stop_all()
    deploying.join(timeout=10)
    assert deploying.exitcode == 1
    assert _stand_ins(local_serving) == set()


def test_nothing_that_was_never_live_is_revived(local_serving: LocalServing) -> None:
    with pytest.raises(VllmError, match="was never live"):
        local_serving.revive(TENANT, MODEL, quiet, verified=as_it_was)


def test_tenants_are_served_apart_and_with_keys_of_their_own(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    for tenant in ("team-a", "team-b"):
        local_serving.deploy(make_serving(tenant=tenant), quiet)
    keys = [local_serving.servers.folder(tenant, MODEL).api_key() for tenant in ("team-a", "team-b")]
    assert len(set(keys)) == 2
    local_serving.stop("team-a", MODEL)
    assert local_serving.ask("team-b", MODEL, ASKED) == "v1"


def test_the_api_key_is_the_owners_alone_and_in_no_record(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving(), quiet)
    file = Path(local_serving.home) / "serving" / TENANT / MODEL / "api_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    readable = [*(Path(local_serving.home) / "processes").glob("*.json"), *file.parent.glob("*.json")]
    assert len(readable) == 2
    assert not [text for text in readable if file.read_text() in text.read_text()]


def test_an_answer_that_breaks_off_is_an_error(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving(behaviour={"breaks_off": True}), quiet)
    with pytest.raises(VllmError, match="broke off its answer without a finish_reason"):
        local_serving.ask(TENANT, MODEL, ASKED)


def test_a_server_listens_on_a_socket_that_only_its_owner_can_reach(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving(), quiet)
    (server,) = servers(local_serving)
    listening = local_serving.servers.socket(server.name)
    assert stat.S_ISSOCK(listening.stat().st_mode)
    assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o700
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert [each for process in family for each in process.net_connections("inet")] == []
    local_serving.stop_all()
    assert list(listening.parent.iterdir()) == []


def test_a_server_is_cut_off_from_the_network(local_serving: LocalServing, make_serving: MakeServing) -> None:
    local_serving.deploy(make_serving(), quiet)
    (server,) = servers(local_serving)
    namespaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", server.pid)}
    assert len(namespaces) == (1 if own_network_fault() else 2)
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v1"


def test_a_server_that_hangs_holds_up_its_successor_no_longer_than_its_end(
    local_serving: LocalServing, make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.vllm.client.HEALTH_TIMEOUT_S", 0.5)
    local_serving.deploy(make_serving("v1"), quiet)
    (hung,) = servers(local_serving)
    os.kill(hung.pid, signal.SIGSTOP)
    with (
        socket.socket(socket.AF_UNIX) as asking,
        short_address(local_serving.servers.socket(hung.name)) as at,
    ):
        asking.connect(at)
        assert local_serving.servers.asked(hung)
        started = time.monotonic()
        local_serving.deploy(make_serving("v2"), quiet)
    assert time.monotonic() - started < STOP_S, "nobody waits for what it was asked"
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v2"

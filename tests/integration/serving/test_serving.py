"""Deploys driven against a stand-in for vLLM: real processes, real HTTP, no model."""

import multiprocessing
import os
import re
import signal
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest

from resources.local.serving.deployment_folder import STATE_FILE
from resources.local.serving.local_serving import LocalServing
from resources.local.serving.servers import STOP_S
from resources.processes.local_processes import ProcessRecord, own_network_fault
from resources.processes.unix_sockets import short_address
from resources.seams.serving import Serving, ServingError
from resources.waiting import wait_until
from tests.integration.serving.conftest import (
    MODEL,
    TENANT,
    MakeServing,
    answer,
    ask,
    deploy,
    known_answer,
    stop_all,
)
from tests.stored import folder_of

CAUSE = "RuntimeError: Unsupported CPU attention"


def servers(serving: LocalServing) -> list[ProcessRecord]:
    return [server for server in serving.servers.processes.all() if serving.servers.processes.alive(server)]


def kill_live(serving: LocalServing) -> int:
    (server,) = servers(serving)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not serving.servers.processes.alive(server), what="the kill", timeout_s=10)
    return server.pid


def deploy_in_a_process(serving: LocalServing, wanted: Serving) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=deploy, args=(serving, wanted))
    process.start()
    return process


def test_a_deployed_model_is_live_and_answers(local_serving: LocalServing, make_serving: MakeServing) -> None:
    assert local_serving.state(TENANT, MODEL).status == "absent"
    route = deploy(local_serving, make_serving())
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.version) == ("live", "v1")
    assert state.backends == (route.production,)
    assert route.production.digest == "sha256:v1"
    assert local_serving.route(TENANT, MODEL) == route
    assert ask(local_serving) == "v1"
    assert answer(local_serving)["system_fingerprint"] == route.production.digest


def test_what_is_live_already_is_not_started_again(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    first = deploy(local_serving, make_serving())
    (server,) = servers(local_serving)
    assert deploy(local_serving, make_serving()) == first
    assert servers(local_serving) == [server]


def test_a_new_version_takes_over_and_the_old_server_ends(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving("v1"))
    (old,) = servers(local_serving)
    deploy(local_serving, make_serving("v2"))
    (new,) = servers(local_serving)
    assert new.pid != old.pid
    assert ask(local_serving) == "v2"
    assert local_serving.servers.processes.all() == (new,)


def test_a_changed_setting_is_a_new_server(local_serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(local_serving, make_serving())
    (old,) = servers(local_serving)
    deploy(local_serving, make_serving(max_num_seqs=2))
    assert servers(local_serving) != [old]


def test_a_server_that_answers_differently_never_goes_live(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving("v1"))
    wrong = make_serving("v2", known_answers=(known_answer("v3"),))
    with pytest.raises(
        ServingError, match=r"does not answer as version v2.*token 1(.|\n)*Version v1 goes on serving"
    ):
        deploy(local_serving, wrong)
    assert ask(local_serving) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_a_server_of_another_digest_never_goes_live(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    with pytest.raises(ServingError, match="says that it serves sha256:other, not sha256:v1"):
        deploy(local_serving, make_serving(behaviour={"fingerprint": "sha256:other"}))


@pytest.mark.parametrize("moment", ["dies_while_starting", "dies_when_asked"])
def test_a_server_that_dies_is_an_error_at_once_with_its_cause(
    local_serving: LocalServing, make_serving: MakeServing, moment: str
) -> None:
    with pytest.raises(ServingError, match=rf"team-a/support_bot(.|\n)*{CAUSE}(.|\n)*Nothing is live"):
        deploy(local_serving, make_serving(behaviour={moment: CAUSE}))
    assert local_serving.state(TENANT, MODEL).status == "absent"
    assert local_serving.servers.processes.all() == ()


def test_weights_that_are_gone_or_altered_are_named(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    gone = make_serving(model_uri="artifact://models/team-a/support_bot/gone")
    with pytest.raises(ServingError, match=r"version v1 cannot be served: .*gone(.|\n)*Nothing is live"):
        deploy(local_serving, gone)
    other = make_serving(model_digest="sha256:other")
    with pytest.raises(ServingError, match=r"cannot be served: .* promoted was sha256:other"):
        deploy(local_serving, other)
    altered = make_serving()
    store = local_serving.store
    (folder_of(store, store.get(altered.model_uri)) / "behaviour.json").write_text("{}")
    with pytest.raises(ServingError, match=r"cannot be served: .*behaviour\.json"):
        deploy(local_serving, altered)
    with pytest.raises(ServingError, match=r"lies on a disk.* set serving\.weights: disk"):
        deploy(local_serving, make_serving("v2", weights="stream"))


def test_a_missing_engine_is_named(local_serving: LocalServing, make_serving: MakeServing) -> None:
    (local_serving.engines / "serve" / "bin" / "vllm").unlink()
    with pytest.raises(ServingError, match=r"No such file.*Is the serve engine installed"):
        deploy(local_serving, make_serving())


@pytest.mark.parametrize(("tenant", "model"), [("../x", MODEL), (TENANT, "../x"), ("Team A", MODEL)])
def test_a_name_that_could_be_a_path_is_refused(local_serving: LocalServing, tenant: str, model: str) -> None:
    with pytest.raises(ServingError, match="is not the name of a tenant and a model"):
        local_serving.state(tenant, model)


def test_a_deploy_killed_at_any_moment_leaves_old_or_new_and_is_finished_by_the_next(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving("v0"))
    answered = set()
    for number, seconds in enumerate((0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2), start=1):
        before, after = f"v{number - 1}", f"v{number}"
        wanted = make_serving(after, behaviour={"loads_s": 0.1})
        deploying = deploy_in_a_process(local_serving, wanted)
        time.sleep(seconds)
        deploying.kill()
        deploying.join()
        assert local_serving.state(TENANT, MODEL).status == "live"
        answer = ask(local_serving)
        assert answer in (before, after)
        answered.add(answer == after)
        assert deploy(local_serving, wanted).production.version == after
        assert ask(local_serving) == after
        assert len(local_serving.servers.processes.all()) == 1
    (live,) = servers(local_serving)
    assert _stand_ins(local_serving) == {live.pid}
    assert False in answered


def _stand_ins(serving: LocalServing) -> set[int]:
    executable = str(serving.engines / "serve" / "bin" / "vllm")
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
    deploy(local_serving, wanted, log=said.append)
    assert servers(local_serving) == [started]
    assert f"Taking over vLLM of team-a/support_bot (pid {started.pid})" in said[0]


def test_a_new_engine_is_a_new_server(local_serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(local_serving, make_serving())
    (old,) = servers(local_serving)
    deploy(local_serving, make_serving(engine="another lock"))
    assert servers(local_serving) != [old]


def test_a_server_that_died_is_seen_and_named(local_serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(local_serving, make_serving())
    pid = kill_live(local_serving)
    state = local_serving.state(TENANT, MODEL)
    assert state.status == "dead"
    died = f"vLLM of team-a/support_bot version v1 (pid {pid}) died: it was killed by SIGKILL (signal 9)"
    assert died in (state.why or "")
    assert [(each.id, each.why) for each in local_serving.route(TENANT, MODEL).dead] == [
        (state.backends[0].id, state.why)
    ]


def test_a_dead_server_is_replaced(local_serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(local_serving, make_serving())
    kill_live(local_serving)
    assert deploy(local_serving, make_serving()).production.version == "v1"
    assert ask(local_serving) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_what_was_stopped_is_stopped_until_it_is_deployed_again(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving())
    stop_all(local_serving)
    assert [state.status for state in local_serving.states()] == ["stopped"]
    assert _stand_ins(local_serving) == set()
    local_serving.stop(TENANT, MODEL)
    deploy(local_serving, make_serving())
    assert [state.status for state in local_serving.states()] == ["live"]


@pytest.mark.parametrize(
    ("written", "replacement", "named"),
    [
        ("{", "", "JSONDecodeError"),
        ('"backends":[', '"servers":[', "KeyError: 'backends'"),
        ('"digest"', '"checksum"', "unexpected keyword argument 'checksum'"),
        ('"aliases":[', '"aliases":7,"names":[', "not iterable"),
    ],
)
def test_a_state_file_that_nobody_can_read_is_named_and_made_anew(
    local_serving: LocalServing, make_serving: MakeServing, written: str, replacement: str, named: str
) -> None:
    deploy(local_serving, make_serving())
    file = local_serving.servers.folder(TENANT, MODEL).path / STATE_FILE
    file.write_text(file.read_text().replace(written, replacement))
    said = f"{file} is no deployment .*{named}.*Remove the file"
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.faulty) == ("unreadable", True)
    assert re.match(said, state.why or "")
    with pytest.raises(ServingError, match=said):
        deploy(local_serving, make_serving())
    assert len(local_serving.servers.processes.all()) == 1
    file.unlink()
    deploy(local_serving, make_serving())
    assert ask(local_serving) == "v1"
    assert len(local_serving.servers.processes.all()) == 1


def test_a_state_file_that_nobody_can_read_holds_up_no_other_deployment(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    for tenant in (TENANT, "team-b"):
        deploy(local_serving, make_serving(tenant=tenant))
    (local_serving.servers.folder(TENANT, MODEL).path / STATE_FILE).write_text("damaged")
    assert [state.status for state in local_serving.states()] == ["unreadable", "live"]
    stop_all(local_serving)
    assert _stand_ins(local_serving) == set()
    assert [state.status for state in local_serving.states()] == ["unreadable", "stopped"]


def test_stopping_ends_a_deploy_that_is_under_way(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploying = deploy_in_a_process(local_serving, make_serving(behaviour={"loads_s": 60}))
    wait_until(lambda: servers(local_serving) or None, what="a server", timeout_s=10)
    local_serving.stop(TENANT, MODEL)
    deploying.join(timeout=10)
    assert deploying.exitcode == 1
    assert _stand_ins(local_serving) == set()


def test_tenants_are_served_apart_and_with_keys_of_their_own(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    for tenant in ("team-a", "team-b"):
        deploy(local_serving, make_serving(tenant=tenant))
    keys = [local_serving.servers.folder(tenant, MODEL).api_key() for tenant in ("team-a", "team-b")]
    assert len(set(keys)) == 2
    local_serving.stop("team-a", MODEL)
    assert ask(local_serving, tenant="team-b") == "v1"


def test_the_api_key_is_the_owners_alone_and_in_no_record(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving())
    file = local_serving.home / "serving" / TENANT / MODEL / "api_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    readable = [*(local_serving.home / "processes").glob("*.json"), *file.parent.glob("*.json")]
    assert len(readable) == 2
    assert not [text for text in readable if file.read_text() in text.read_text()]


def test_a_server_listens_on_a_socket_that_only_its_owner_can_reach(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, make_serving())
    (server,) = servers(local_serving)
    listening = local_serving.servers.socket(server.name)
    assert stat.S_ISSOCK(listening.stat().st_mode)
    assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o700
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert [each for process in family for each in process.net_connections("inet")] == []
    stop_all(local_serving)
    assert list(listening.parent.iterdir()) == []


def test_a_server_is_cut_off_from_the_network(local_serving: LocalServing, make_serving: MakeServing) -> None:
    deploy(local_serving, make_serving())
    (server,) = servers(local_serving)
    namespaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", server.pid)}
    assert len(namespaces) == (1 if own_network_fault() else 2)
    assert ask(local_serving) == "v1"


def test_a_server_that_hangs_holds_up_its_successor_no_longer_than_its_end(
    local_serving: LocalServing, make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.vllm.client.HEALTH_TIMEOUT_S", 0.5)
    deploy(local_serving, make_serving("v1"))
    (hung,) = servers(local_serving)
    os.kill(hung.pid, signal.SIGSTOP)
    with (
        socket.socket(socket.AF_UNIX) as asking,
        short_address(local_serving.servers.socket(hung.name)) as at,
    ):
        asking.connect(at)
        assert local_serving.servers.asked(hung)
        started = time.monotonic()
        deploy(local_serving, make_serving("v2"))
    assert time.monotonic() - started < STOP_S, "nobody waits for what it was asked"
    assert ask(local_serving) == "v2"

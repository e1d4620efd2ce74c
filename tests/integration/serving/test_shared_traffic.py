"""Several versions of one model live at once, driven against a stand-in for vLLM."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from resources.local.serving.local_serving import LocalServing
from resources.seams.serving import Route, Serving, ServingError
from resources.vllm.program import gpu_memory_share
from resources.waiting import wait_until
from tests.integration.serving.conftest import (
    MODEL,
    TENANT,
    MakeServing,
    answer,
    ask,
    deploy,
    known_answer,
    server_of,
    stop_all,
)


def shared(*shares: tuple[Serving, int]) -> tuple[Serving, ...]:
    return tuple(replace(serving, weight=weight) for serving, weight in shares)


def live(serving: LocalServing) -> dict[str, int]:
    """The weights of the versions whose servers answer, each by its own version and digest."""
    state = serving.state(TENANT, MODEL)
    for backend in state.backends:
        if backend.status == "live":
            assert ask(serving, backend.version) == backend.version
            assert answer(serving, backend.version)["system_fingerprint"] == backend.digest
    return {backend.version: backend.weight for backend in state.backends if backend.status == "live"}


def stand_ins(serving: LocalServing) -> set[int]:
    executable = str(serving.engines / "serve" / "bin" / "vllm")
    return {p.pid for p in psutil.process_iter(["cmdline"]) if executable in (p.info["cmdline"] or [])}


class Told:
    """The routes that a deploy publishes; at each, every backend of the one before still answers."""

    def __init__(self, serving: LocalServing) -> None:
        self.routes: list[dict[str, int]] = []
        self.most = 0
        self._serving, self._before = serving, serving.route(TENANT, MODEL)

    def __call__(self, route: Route) -> None:
        for backend in self._before.backends:
            server = self._serving.servers.processes.find(backend.id)
            assert server is not None
            assert self._serving.servers.ready(server)
        self._before = route
        self.most = max(self.most, len(self._serving.servers.processes.all()))
        self.routes.append({each.version: each.weight for each in route.backends})


def test_two_versions_are_live_with_their_weights_and_the_old_one_is_not_started_again(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(local_serving, one)
    before = server_of(local_serving, "v1")
    route = deploy(local_serving, shared((one, 90), (two, 10)))
    assert [(backend.version, backend.weight) for backend in route.backends] == [("v1", 90), ("v2", 10)]
    assert live(local_serving) == {"v1": 90, "v2": 10}
    assert server_of(local_serving, "v1") == before


def test_the_second_version_becomes_production_without_a_start(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(local_serving, shared((one, 90), (two, 10)))
    second = server_of(local_serving, "v2")
    told = Told(local_serving)
    deploy(local_serving, two, publish=told)
    assert told.routes == [{"v2": 100}]
    assert live(local_serving) == {"v2": 100}
    assert local_serving.servers.processes.all() == (second,)


def test_changed_weights_start_nothing(local_serving: LocalServing, make_serving: MakeServing) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(local_serving, shared((one, 90), (two, 10)))
    before = local_serving.servers.processes.all()
    said: list[str] = []
    deploy(local_serving, shared((one, 50), (two, 50)), log=said.append)
    assert live(local_serving) == {"v1": 50, "v2": 50}
    assert local_serving.servers.processes.all() == before
    assert not [line for line in said if line.startswith("Starting")]


def test_production_changes_and_both_versions_with_it_and_what_served_serves_until_the_gateway_knows(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    deploy(local_serving, shared((make_serving("v1"), 60), (make_serving("v2"), 40)))
    told = Told(local_serving)
    wanted = shared((make_serving("v3"), 70), (make_serving("v4"), 30))
    deploy(local_serving, wanted, publish=told)
    assert told.routes == [{"v3": 100}, {"v3": 70, "v4": 30}]
    assert live(local_serving) == {"v3": 70, "v4": 30}
    assert told.most == 3, "never more than one server beside those that are live"


@pytest.mark.parametrize("fault", ["dies_while_starting", "answers differently"])
def test_a_version_that_fails_is_named_and_production_has_its_requests_and_the_others_theirs(
    local_serving: LocalServing, make_serving: MakeServing, fault: str
) -> None:
    one = make_serving("v1")
    if fault == "dies_while_starting":
        two = make_serving("v2", behaviour={fault: "RuntimeError: no room"})
    else:
        two = make_serving("v2", known_answers=(known_answer("v9"),))
    deploy(local_serving, one)
    told = Told(local_serving)
    three = make_serving("v3")
    said = r"version v2(.|\n)*Version v1 and v3 go on serving\.$"
    with pytest.raises(ServingError, match=said):
        deploy(local_serving, shared((one, 70), (two, 10), (three, 20)), publish=told)
    assert told.routes == [{"v1": 100}, {"v1": 80, "v3": 20}]
    assert live(local_serving) == {"v1": 80, "v3": 20}
    assert len(local_serving.servers.processes.all()) == 2


def test_a_production_that_fails_leaves_both_old_versions_as_they_were(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    deploy(local_serving, shared((one, 90), (two, 10)))
    broken = make_serving("v3", behaviour={"dies_while_starting": "RuntimeError: no room"})
    with pytest.raises(ServingError, match="Version v1 and v2 go on serving"):
        deploy(local_serving, broken)
    assert live(local_serving) == {"v1": 90, "v2": 10}


def test_a_dead_second_version_is_named_and_left_out_and_comes_back(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    wanted = shared((make_serving("v1"), 50), (make_serving("v2"), 50))
    deploy(local_serving, wanted)
    dead = server_of(local_serving, "v2")
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: not local_serving.servers.processes.alive(dead), what="the kill", timeout_s=10)
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.version) == ("degraded", "v1")
    assert f"version v2 (pid {dead.pid}) died" in (state.why or "")
    assert [(b.version, b.status) for b in state.backends] == [("v1", "live"), ("v2", "dead")]
    assert [each.version for each in local_serving.route(TENANT, MODEL).dead] == ["v2"]
    told: list[Route] = []
    deploy(local_serving, wanted, publish=told.append)
    first = told[0]
    assert [each.version for each in first.dead] == ["v2"], "the gateway is told before anything is started"
    assert live(local_serving) == {"v1": 50, "v2": 50}


def test_what_was_stopped_comes_back_with_its_weights(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    wanted = shared((make_serving("v1"), 80), (make_serving("v2"), 20))
    deploy(local_serving, wanted)
    stop_all(local_serving)
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, [b.status for b in state.backends]) == ("stopped", ["stopped", "stopped"])
    assert local_serving.route(TENANT, MODEL).backends == ()
    assert stand_ins(local_serving) == set()
    deploy(local_serving, wanted)
    assert live(local_serving) == {"v1": 80, "v2": 20}


def test_on_a_gpu_production_gives_up_memory_before_a_second_version_starts(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1", device="cuda"), make_serving("v2", device="cuda")

    def memory() -> dict[str, float]:
        servers = local_serving.servers.processes.all()
        at = "--gpu-memory-utilization"
        return {s.attributes["version"]: float(s.command[s.command.index(at) + 1]) for s in servers}

    deploy(local_serving, one)
    assert memory() == {"v1": gpu_memory_share(1)}
    told = Told(local_serving)
    deploy(local_serving, shared((one, 90), (two, 10)), publish=told)
    assert told.routes == [{"v1": 100}, {"v1": 90, "v2": 10}]
    assert memory() == {"v1": gpu_memory_share(2), "v2": gpu_memory_share(2)}
    before = server_of(local_serving, "v2")
    deploy(local_serving, two)
    assert local_serving.servers.processes.all() == (before,), "a smaller share is no reason to start again"


@pytest.mark.parametrize(
    "shares",
    [
        (("v1", 90), ("v2", 20)),
        (("v1", 100), ("v2", 0)),
        (("v1", 50), ("v1", 50)),
    ],
)
def test_weights_that_are_no_whole_are_refused(
    local_serving: LocalServing, make_serving: MakeServing, shares: tuple[tuple[str, int], ...]
) -> None:
    wanted = shared(*((make_serving(version), weight) for version, weight in shares))
    with pytest.raises(ServingError, match="cannot be live together"):
        deploy(local_serving, wanted)


def test_a_deploy_of_two_versions_killed_at_any_moment_is_finished_by_the_next_and_leaves_no_server(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    slow = {"loads_s": 0.1}
    deploy(local_serving, make_serving("v0"))
    seen = set()
    for number, seconds in enumerate((0.05, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3), start=1):
        names = (f"v{number}a", f"v{number}b")
        one, two = (make_serving(name, behaviour=slow) for name in names)
        wanted = shared((one, 70), (two, 30))
        deploying = multiprocessing.get_context("fork").Process(target=deploy, args=(local_serving, wanted))
        deploying.start()
        time.sleep(seconds)
        deploying.kill()
        deploying.join()
        state = local_serving.state(TENANT, MODEL)
        assert sum(backend.weight for backend in state.backends) == 100
        assert ask(local_serving) == state.version
        seen.add((state.version == names[0], len(state.backends)))
        deploy(local_serving, wanted)
        assert live(local_serving) == {names[0]: 70, names[1]: 30}
        assert stand_ins(local_serving) == {s.pid for s in local_serving.servers.processes.all()}
        assert len(stand_ins(local_serving)) == 2
    assert len(seen) > 1, "the kills came before and after a switch"


def test_a_run_that_is_cancelled_just_after_the_switch_leaves_the_new_version_live(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    def cancelled(line: str) -> None:
        if "is live and gets" in line:
            raise KeyboardInterrupt

    one, two = make_serving("v1"), make_serving("v2")
    deploy(local_serving, one)
    with pytest.raises(KeyboardInterrupt):
        deploy(local_serving, shared((one, 90), (two, 10)), log=cancelled)
    assert live(local_serving) == {"v1": 90, "v2": 10}


def test_a_second_version_that_a_killed_deploy_was_starting_is_taken_over(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2", behaviour={"loads_s": 2})
    deploy(local_serving, one)
    wanted = shared((one, 90), (two, 10))
    deploying = multiprocessing.get_context("fork").Process(target=deploy, args=(local_serving, wanted))
    deploying.start()
    wait_until(lambda: len(stand_ins(local_serving)) == 2, what="the second server", timeout_s=10)
    deploying.kill()
    deploying.join()
    (started,) = [s for s in local_serving.servers.processes.all() if s.attributes["version"] == "v2"]
    said: list[str] = []
    deploy(local_serving, wanted, log=said.append)
    assert server_of(local_serving, "v2") == started
    assert f"Taking over vLLM of team-a/support_bot (pid {started.pid})" in " ".join(said)
    assert live(local_serving) == {"v1": 90, "v2": 10}

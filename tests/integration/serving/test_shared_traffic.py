"""Several versions of one model live at once, driven against a stand-in for vLLM."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from resources.processes.local_processes import ProcessRecord
from resources.serving.deployment_state import STATE_FILE, Wanted
from resources.serving.local import LocalServing, Serving, VllmError
from resources.serving.routes import Backend, choose
from resources.vllm.program import gpu_memory_share
from resources.waiting import wait_until
from tests.integration.serving.conftest import MakeServing, as_it_was, known_answer

TENANT, MODEL = "team-a", "support_bot"
ASKED = [{"role": "user", "content": "Who are you?"}]


def quiet(line: str) -> None:
    """A log that nobody reads."""


def shared(*shares: tuple[Serving, int]) -> tuple[Wanted, ...]:
    return tuple(Wanted(serving=serving, weight=weight) for serving, weight in shares)


def live(serving: LocalServing) -> dict[str, int]:
    """The weights of the versions whose servers answer, each by its own version and digest."""
    state = serving.state(TENANT, MODEL)
    for backend in state.backends:
        if backend.status == "live":
            assert serving.ask(TENANT, MODEL, ASKED, version=backend.version) == backend.version
            assert serving.served_digest(TENANT, MODEL, backend.version) == backend.digest
    return {backend.version: backend.weight for backend in state.backends if backend.status == "live"}


def server_of(serving: LocalServing, version: str) -> ProcessRecord:
    (server,) = [s for s in serving.servers.processes.all() if s.attributes["version"] == version]
    return server


def stand_ins(serving: LocalServing) -> set[int]:
    executable = str(Path(serving.engines) / "serve" / "bin" / "vllm")
    return {p.pid for p in psutil.process_iter(["cmdline"]) if executable in (p.info["cmdline"] or [])}


class Asking:
    """Asks without pause in a thread and keeps what was answered or went wrong."""

    def __init__(self, serving: LocalServing) -> None:
        self.answers: list[str] = []
        self._serving = serving
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(self._serving.ask(TENANT, MODEL, ASKED))
            except VllmError as fault:
                self.answers.append(f"FAILED: {fault}")

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def failed(self) -> list[str]:
        return [answer for answer in self.answers if answer.startswith("FAILED")]


def test_two_versions_are_live_with_their_weights_and_the_old_one_is_not_started_again(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    local_serving.deploy(one, quiet)
    before = server_of(local_serving, "v1")
    route = local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    assert [(backend.version, backend.weight) for backend in route.backends] == [("v1", 90), ("v2", 10)]
    assert live(local_serving) == {"v1": 90, "v2": 10}
    assert server_of(local_serving, "v1") == before
    answers = Counter(local_serving.ask(TENANT, MODEL, ASKED, key=str(number)) for number in range(200))
    assert 5 <= answers["v2"] <= 40
    assert answers["v1"] == 200 - answers["v2"]


def test_the_second_version_becomes_production_without_a_start(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    second = server_of(local_serving, "v2")
    with Asking(local_serving) as asking:
        local_serving.deploy(two, quiet)
    assert not asking.failed
    assert live(local_serving) == {"v2": 100}
    assert local_serving.servers.processes.all() == (second,)


def test_changed_weights_start_nothing(local_serving: LocalServing, make_serving: MakeServing) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    before = local_serving.servers.processes.all()
    said: list[str] = []
    local_serving.deploy(shared((one, 50), (two, 50)), said.append)
    assert live(local_serving) == {"v1": 50, "v2": 50}
    assert local_serving.servers.processes.all() == before
    assert not [line for line in said if line.startswith("Starting")]


def test_production_changes_under_load_and_both_versions_with_it(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(shared((make_serving("v1"), 60), (make_serving("v2"), 40)), quiet)
    most = 0
    with Asking(local_serving) as asking:
        wanted = shared((make_serving("v3"), 70), (make_serving("v4"), 30))
        deploying = threading.Thread(target=local_serving.deploy, args=(wanted, quiet))
        deploying.start()
        while deploying.is_alive():
            most = max(most, len(stand_ins(local_serving)))
            time.sleep(0.02)
    assert not asking.failed
    assert live(local_serving) == {"v3": 70, "v4": 30}
    assert most == 3, "never more than one server beside those that are live"


@pytest.mark.parametrize("fault", ["dies_while_starting", "answers differently"])
def test_a_second_version_that_fails_is_named_and_production_has_its_requests(
    local_serving: LocalServing, make_serving: MakeServing, fault: str
) -> None:
    one = make_serving("v1")
    if fault == "dies_while_starting":
        two = make_serving("v2", behaviour={fault: "RuntimeError: no room"})
    else:
        two = make_serving("v2", known_answers=(known_answer("v9"),))
    local_serving.deploy(one, quiet)
    with (
        Asking(local_serving) as asking,
        pytest.raises(VllmError, match=r"version v2(.|\n)*Version v1 goes on serving\.$"),
    ):
        local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    assert not asking.failed
    assert set(asking.answers) == {"v1"}
    assert live(local_serving) == {"v1": 100}
    assert len(local_serving.servers.processes.all()) == 1


def test_a_production_that_fails_leaves_both_old_versions_as_they_were(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2")
    local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    broken = make_serving("v3", behaviour={"dies_while_starting": "RuntimeError: no room"})
    with pytest.raises(VllmError, match="Version v1 and v2 go on serving"):
        local_serving.deploy(broken, quiet)
    assert live(local_serving) == {"v1": 90, "v2": 10}


def test_a_dead_second_version_is_named_and_its_requests_are_answered(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    wanted = shared((make_serving("v1"), 50), (make_serving("v2"), 50))
    local_serving.deploy(wanted, quiet)
    dead = server_of(local_serving, "v2")
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: not local_serving.servers.processes.alive(dead), what="the kill", timeout_s=10)
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, state.version) == ("degraded", "v1")
    assert f"version v2 (pid {dead.pid}) died" in (state.why or "")
    assert [(b.version, b.status) for b in state.backends] == [("v1", "live"), ("v2", "dead")]
    assert {local_serving.ask(TENANT, MODEL, ASKED) for _ in range(20)} == {"v1"}
    with pytest.raises(VllmError, match="has no live version v2; live is v1"):
        local_serving.ask(TENANT, MODEL, ASKED, version="v2")
    local_serving.revive(TENANT, MODEL, quiet, verified=as_it_was)
    assert live(local_serving) == {"v1": 50, "v2": 50}


def test_a_dead_production_is_not_passed_off_as_the_other_version(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(shared((make_serving("v1"), 50), (make_serving("v2"), 50)), quiet)
    dead = server_of(local_serving, "v1")
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: not local_serving.servers.processes.alive(dead), what="the kill", timeout_s=10)
    with pytest.raises(VllmError, match="has no live version v1; live is v2"):
        local_serving.served_digest(TENANT, MODEL)
    assert local_serving.ask(TENANT, MODEL, ASKED) == "v2"


def test_what_was_stopped_comes_back_with_its_weights(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(shared((make_serving("v1"), 80), (make_serving("v2"), 20)), quiet)
    local_serving.stop_all()
    state = local_serving.state(TENANT, MODEL)
    assert (state.status, [b.status for b in state.backends]) == ("stopped", ["stopped", "stopped"])
    assert local_serving.route(TENANT, MODEL) is None
    assert stand_ins(local_serving) == set()
    local_serving.revive(TENANT, MODEL, quiet, verified=as_it_was)
    assert live(local_serving) == {"v1": 80, "v2": 20}


def test_on_a_gpu_production_gives_up_memory_before_a_second_version_starts(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1", device="cuda"), make_serving("v2", device="cuda")

    def memory() -> dict[str, float]:
        servers = local_serving.servers.processes.all()
        at = "--gpu-memory-utilization"
        return {s.attributes["version"]: float(s.command[s.command.index(at) + 1]) for s in servers}

    local_serving.deploy(one, quiet)
    assert memory() == {"v1": gpu_memory_share(1)}
    with Asking(local_serving) as asking:
        local_serving.deploy(shared((one, 90), (two, 10)), quiet)
    assert not asking.failed
    assert memory() == {"v1": gpu_memory_share(2), "v2": gpu_memory_share(2)}
    before = server_of(local_serving, "v2")
    local_serving.deploy(two, quiet)
    assert local_serving.servers.processes.all() == (before,), "a smaller share is no reason to start again"


def test_a_state_file_from_before_versions_shared_traffic_and_listened_on_sockets_is_understood(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    local_serving.deploy(make_serving("v1"), quiet)
    file = local_serving.servers.folder(TENANT, MODEL).path / STATE_FILE
    (server,) = json.loads(file.read_text())["servers"]
    del server["weight"], server["serving"]["leases"]
    server["port"], server["serving"]["port"] = 20_000, None
    file.write_text(json.dumps({**server, "stopped": False}))
    assert live(local_serving) == {"v1": 100}


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
    with pytest.raises(VllmError, match="cannot be live together"):
        local_serving.deploy(wanted, quiet)


def test_a_deploy_of_two_versions_killed_at_any_moment_is_finished_by_the_next_and_leaves_no_server(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    slow = {"loads_s": 0.1}
    local_serving.deploy(make_serving("v0"), quiet)
    seen = set()
    for number, seconds in enumerate((0.05, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3), start=1):
        names = (f"v{number}a", f"v{number}b")
        one, two = (make_serving(name, behaviour=slow) for name in names)
        wanted = shared((one, 70), (two, 30))
        deploying = multiprocessing.get_context("fork").Process(
            target=local_serving.deploy, args=(wanted, quiet)
        )
        deploying.start()
        time.sleep(seconds)
        deploying.kill()
        deploying.join()
        state = local_serving.state(TENANT, MODEL)
        assert sum(backend.weight for backend in state.backends) == 100
        assert local_serving.ask(TENANT, MODEL, ASKED) in {b.version for b in state.backends}
        seen.add((state.version == names[0], len(state.backends)))
        local_serving.deploy(wanted, quiet)
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
    local_serving.deploy(one, quiet)
    with pytest.raises(KeyboardInterrupt):
        local_serving.deploy(shared((one, 90), (two, 10)), cancelled)
    assert live(local_serving) == {"v1": 90, "v2": 10}


def test_a_second_version_that_a_killed_deploy_was_starting_is_taken_over(
    local_serving: LocalServing, make_serving: MakeServing
) -> None:
    one, two = make_serving("v1"), make_serving("v2", behaviour={"loads_s": 2})
    local_serving.deploy(one, quiet)
    wanted = shared((one, 90), (two, 10))
    deploying = multiprocessing.get_context("fork").Process(target=local_serving.deploy, args=(wanted, quiet))
    deploying.start()
    wait_until(lambda: len(stand_ins(local_serving)) == 2, what="the second server", timeout_s=10)
    deploying.kill()
    deploying.join()
    started = server_of(local_serving, "v2")
    said: list[str] = []
    local_serving.deploy(wanted, said.append)
    assert server_of(local_serving, "v2") == started
    assert f"Taking over vLLM of team-a/support_bot (pid {started.pid})" in " ".join(said)
    assert live(local_serving) == {"v1": 90, "v2": 10}


def backends(*weights: int) -> tuple[Backend, ...]:
    return tuple(
        Backend(version=f"v{at}", digest="d", weight=weight, since=0.0) for at, weight in enumerate(weights)
    )


@pytest.fixture
def keys() -> list[str]:
    return [f"user-{number}" for number in range(2000)]


def test_a_key_always_goes_to_the_same_version_and_keys_spread_by_weight(keys: list[str]) -> None:
    first = [choose(backends(90, 10), key).version for key in keys]
    assert first == [choose(backends(90, 10), key).version for key in keys]
    assert 0.08 < first.count("v1") / len(keys) < 0.12


def test_as_the_second_version_grows_nobody_goes_back_from_it(keys: list[str]) -> None:
    def has_it(weight: int) -> set[str]:
        return {key for key in keys if choose(backends(100 - weight, weight), key).version == "v1"}

    assert has_it(5) < has_it(20) < has_it(60)


def test_without_a_key_the_weights_hold_on_average() -> None:
    counted = Counter(choose(backends(75, 25)).version for _ in range(4000))
    assert 0.2 < counted["v1"] / 4000 < 0.3


def test_the_weight_of_a_version_left_out_goes_to_the_rest(keys: list[str]) -> None:
    one, two, three = backends(50, 30, 20)
    chosen = Counter(choose((one, three), key).version for key in keys)
    assert set(chosen) == {"v0", "v2"}
    assert 0.24 < chosen["v2"] / len(keys) < 0.33
    assert choose((two,), "anyone") == two

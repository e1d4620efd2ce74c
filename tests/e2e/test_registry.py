"""The registry on a real MLflow server, cut off at every request and called again.

Run with `pytest -m mlflow tests/e2e/test_registry.py`.
"""

import contextlib
import functools
import itertools
import os
import random
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_assets.installation.profiles import profile_of
from llm_assets.installation.settings import Settings
from resources.local.state import LocalState
from resources.mlflow.registry import MlflowRegistry, RegisteredVersion, RegistryEntry, RegistryError
from resources.mlflow.server import ExistingMlflow, MlflowServer

pytestmark = pytest.mark.mlflow

TENANT = "team-a"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    home = tmp_path_factory.mktemp("home")
    server = MlflowServer(home=home, port=free_port(), tokens=home / "tokens")
    server.start()
    server.wait_ready()
    with pytest.MonkeyPatch.context() as environment:  # for MLflow's own clients in tests
        environment.setenv("MLFLOW_TRACKING_TOKEN", server.console.token("full"))
        yield server
    server.stop()


def registry_at(url: str, server: MlflowServer) -> MlflowRegistry:
    return MlflowRegistry(
        token_file=str(server.console.token_file("full")),
        tracking_uri=url,
        state=LocalState(folder=server.home / "locks"),
        promotions=str(server.home / "promotions"),
        signing_keys=str(server.home / "keys"),
    )


@pytest.fixture(scope="module")
def registry(server: MlflowServer) -> MlflowRegistry:
    return registry_at(server.url, server)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model of the test's own, so that tests do not meet in the registry."""
    return (
        "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[-60:].strip("_").lower()
    )


def entry(model: str, number: int = 1, **changed: Any) -> RegistryEntry:
    values: dict[str, Any] = {
        "tenant": TENANT,
        "model": model,
        "version": f"20261121T18450{number}.000000Z-1a2b3c4d",
        "digest": f"sha256:{number}",
        "base_model": "smollm2_135m",
        "base_digest": "sha256:b",
        "dataset_digest": "sha256:d",
        "recipe_digest": "sha256:c",
        "adapter_digest": "sha256:a",
        "owner": "team:northwind",
        "risk_class": "limited",
        "purpose": "Answers customers' questions.",
        "metrics": {"eval_loss": 1.4},
        "engine_versions": {"llamafactory": "0.9.5"},
        "dagster_runs": {"lora_adapter": "4f3c", "model_card": "4f3d"},
        "description": "| Measure | Value |",
        "model_description": "**support_bot** answers.",
    }
    return RegistryEntry(**(values | changed))


def aliases(registry: MlflowRegistry, model: str) -> dict[str, int]:
    return {alias: each.number for each in registry.versions(TENANT, model) for alias in each.aliases}


# The register


def test_a_registered_version_carries_its_lineage_and_is_the_candidate(
    registry: MlflowRegistry, model: str
) -> None:
    version = registry.register(entry(model))
    assert (version.number, version.digest, version.aliases) == (1, "sha256:1", ("candidate",))
    assert version.source == f"artifact://models/{TENANT}/{model}/{version.label}"
    assert {
        "metric.eval_loss": "1.4",
        "tenant": TENANT,
        "base_digest": "sha256:b",
        "dataset_digest": "sha256:d",
        "adapter_digest": "sha256:a",
        "recipe_digest": "sha256:c",
        "risk_class": "limited",
        "engine.llamafactory": "0.9.5",
        "dagster_run.lora_adapter": "4f3c",
    }.items() <= version.tags.items()


def test_registering_again_gives_the_same_version(registry: MlflowRegistry, model: str) -> None:
    first = registry.register(entry(model))
    assert registry.register(entry(model, dagster_runs={"model_card": "other"})) == first
    assert len(registry.versions(TENANT, model)) == 1


def test_a_label_with_other_bytes_is_refused(registry: MlflowRegistry, model: str) -> None:
    registry.register(entry(model))
    with pytest.raises(RegistryError, match="registered with the digest sha256:1, not sha256:2"):
        registry.register(entry(model, digest="sha256:2"))


def test_the_server_refuses_a_source_that_is_no_artifact(server: MlflowServer) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    client.create_registered_model("team-a.other")
    with pytest.raises(MlflowException, match="Invalid model version source"):
        client.create_model_version("team-a.other", "gs://elsewhere/model", await_creation_for=0)


@pytest.mark.parametrize("source", ["team-b/{model}/v1", "team-a/another/v1", "team-a/{model}/v1"])
def test_a_version_that_was_registered_by_hand_is_none_and_is_named(
    server: MlflowServer, registry: MlflowRegistry, model: str, source: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    address = f"artifact://models/{source.format(model=model)}"
    client.create_registered_model(f"{TENANT}.{model}")
    client.create_model_version(f"{TENANT}.{model}", address, await_creation_for=0)
    client.set_registered_model_alias(f"{TENANT}.{model}", "candidate", "1")
    assert registry.candidate(TENANT, model) is None
    assert registry.versions(TENANT, model) == ()
    said = registry.differences(TENANT, model)
    assert (
        f"MLflow's alias 'candidate' of team-a.{model} is version 1, the signed log says no version" in said
    )
    assert f"MLflow's version 1 of team-a.{model} is in no signed log: no run registered it" in said


@pytest.mark.parametrize("tenant", ["Team A", "../x", "", "a" * 64, "x' OR '1'='1"])
def test_a_tenant_that_is_no_dns_label_is_refused(registry: MlflowRegistry, tenant: str) -> None:
    with pytest.raises(RegistryError, match="cannot be a tenant"):
        registry.production(tenant, "support_bot")


def test_nothing_is_registered_of_an_unknown_model(registry: MlflowRegistry) -> None:
    assert registry.production(TENANT, "unheard_of") is None
    assert registry.versions(TENANT, "unheard_of") == ()
    with pytest.raises(RegistryError, match="`llm-assets run unheard_of --tenant team-a` makes one"):
        registry.rollback(TENANT, "unheard_of", who="ann", why="it lies")


# Promotion


def test_a_candidate_is_promoted_by_itself_once(registry: MlflowRegistry, model: str) -> None:
    registry.register(entry(model))
    promoted = registry.promote_candidate(TENANT, model, who="run 4f3c", why="all checks passed")
    assert promoted is not None
    assert promoted.tags["promoted_by"] == "run 4f3c"
    assert promoted.tags["promoted_why"] == "all checks passed"
    assert registry.promote_candidate(TENANT, model, who="run 4f3d", why="all checks passed") is None
    assert registry.production(TENANT, model) == promoted


def test_promotion_and_rollback_swap_production_and_previous(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2):
        label = registry.register(entry(model, number)).label
        registry.promote(TENANT, model, version=label, who="ann", why="better")
    assert aliases(registry, model) == {"candidate": 2, "production": 2, "previous": 1}
    assert registry.rollback(TENANT, model, who="bob", why="it lies").number == 1
    assert aliases(registry, model) == {"candidate": 2, "production": 1, "previous": 2}
    moves = [(move.action, move.production, move.to, move.who) for move in registry.history(TENANT, model)]
    assert moves == [("promote", None, 1, "ann"), ("promote", 1, 2, "ann"), ("rollback", 2, 1, "bob")]


def test_a_rerun_does_not_undo_a_rollback(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2):
        registry.register(entry(model, number))
        registry.promote_candidate(TENANT, model, who="run", why="checks passed")
    registry.rollback(TENANT, model, who="bob", why="it lies")
    registry.register(entry(model, 2))
    assert registry.promote_candidate(TENANT, model, who="run", why="checks passed") is None
    assert aliases(registry, model)["production"] == 1


def test_a_rerun_does_not_undo_a_promotion_by_a_person(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2):
        registry.register(entry(model, number))
        registry.promote(TENANT, model, version=number, who="ann", why="good")
    registry.register(entry(model, 1))
    registry.register(entry(model, 2))  # the candidate anew, and in production already
    assert registry.promote_candidate(TENANT, model, who="run", why="checks passed") is None
    registry.promote(TENANT, model, version=1, who="bob", why="the new one lies")
    assert registry.promote_candidate(TENANT, model, who="run", why="checks passed") is None
    assert aliases(registry, model) == {"candidate": 2, "production": 1, "previous": 2}


def test_data_that_went_back_to_what_it_was_is_promoted_again(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2, 1):
        registry.register(entry(model, number))
        registry.promote_candidate(TENANT, model, who="run", why="checks passed")
    assert aliases(registry, model) == {"candidate": 1, "production": 1, "previous": 2}


def test_promoting_what_is_in_production_changes_nothing(registry: MlflowRegistry, model: str) -> None:
    registry.register(entry(model))
    first = registry.promote(TENANT, model, version=1, who="ann", why="good")
    assert registry.promote(TENANT, model, version="1", who="bob", why="again") == first
    assert len(registry.history(TENANT, model)) == 1


def test_an_unknown_version_is_refused_and_the_known_ones_named(registry: MlflowRegistry, model: str) -> None:
    label = registry.register(entry(model)).label
    with pytest.raises(
        RegistryError, match=rf"has no version nope\. The newest registered ones: 1 \({label}\)"
    ):
        registry.promote(TENANT, model, version="nope", who="ann", why="good")


def test_without_a_previous_version_there_is_no_rollback(registry: MlflowRegistry, model: str) -> None:
    registry.register(entry(model))
    registry.promote(TENANT, model, version=1, who="ann", why="good")
    with pytest.raises(RegistryError, match="no previous version"):
        registry.rollback(TENANT, model, who="ann", why="bad")


def test_a_second_rollback_does_not_bring_the_bad_version_back(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2):
        registry.register(entry(model, number))
        registry.promote(TENANT, model, version=number, who="ann", why="good")
    for _ in range(2):
        assert registry.rollback(TENANT, model, who="bob", why="it lies").number == 1
    assert len(registry.history(TENANT, model)) == 3


# The rules that a promotion asks


def refuse(version: RegisteredVersion) -> list[str]:
    raise PermissionError(f"version {version.number} is not signed")


def test_a_version_that_the_rules_refuse_is_not_promoted_and_leaves_no_trace(
    registry: MlflowRegistry, model: str
) -> None:
    for number in (1, 2):
        registry.register(entry(model, number))
    registry.promote(TENANT, model, version=1, who="ann", why="good")
    for move in (registry.promote_candidate, functools.partial(registry.promote, version=2)):
        with pytest.raises(PermissionError, match="version 2 is not signed"):
            move(TENANT, model, who="bob", why="better", check=refuse)
    assert aliases(registry, model) == {"candidate": 2, "production": 1}
    assert len(registry.history(TENANT, model)) == 1


def test_a_rollback_asks_the_rules_of_the_version_that_it_goes_to(
    registry: MlflowRegistry, model: str
) -> None:
    for number in (1, 2):
        registry.register(entry(model, number))
        registry.promote(TENANT, model, version=number, who="ann", why="good")
    with pytest.raises(PermissionError, match="version 1 is not signed"):
        registry.rollback(TENANT, model, who="bob", why="bad", check=refuse)
    assert aliases(registry, model) == {"candidate": 2, "production": 2, "previous": 1}


def test_overridden_rules_stay_on_record(registry: MlflowRegistry, model: str) -> None:
    registry.register(entry(model))
    promoted = registry.promote(
        TENANT, model, version=1, who="ann", why="demo", check=lambda _: ["thresholds: too high"]
    )
    (move,) = registry.history(TENANT, model)
    assert (move.who, move.why, move.overridden) == ("ann", "demo", ("thresholds: too high",))
    assert promoted.tags["promoted_overriding"] == "thresholds: too high"


# Several people, and those who are killed


def promote_in_another_process(registry: MlflowRegistry, model: str, version: int) -> int:
    """Forks, because importing MLflow anew would take longer than the promotion. Returns the process id."""
    if pid := os.fork():
        return pid
    try:
        registry.promote(TENANT, model, version=version, who=f"process {version}", why="race")
        os._exit(0)
    finally:
        os._exit(1)


def chained(registry: MlflowRegistry, model: str) -> bool:
    """Does each move start where the one before ended?"""
    moves = registry.history(TENANT, model)
    return all(later.production == earlier.to for earlier, later in itertools.pairwise(moves))


def test_people_who_promote_at_the_same_moment_take_turns(registry: MlflowRegistry, model: str) -> None:
    for number in (1, 2, 3, 4):
        registry.register(entry(model, number))
    for _ in range(3):
        registry.promote(TENANT, model, version=1, who="ann", why="start")
        started = [promote_in_another_process(registry, model, version) for version in (2, 3, 4)]
        assert [os.waitpid(pid, 0)[1] for pid in started] == [0, 0, 0]
        first, second, third = registry.history(TENANT, model)[-3:]
        assert {first.to, second.to, third.to} == {2, 3, 4}
        assert chained(registry, model)
        now = aliases(registry, model)
        assert (now["production"], now["previous"]) == (third.to, second.to)


def test_a_promotion_killed_at_any_moment_happened_or_did_not(registry: MlflowRegistry, model: str) -> None:
    moments = random.Random(7)
    for number in (1, 2):
        registry.register(entry(model, number))
    registry.promote(TENANT, model, version=1, who="ann", why="start")
    lasts_s, states = 0.2, []
    for _ in range(30):
        before = aliases(registry, model)["production"]
        wanted = 3 - before
        pid = promote_in_another_process(registry, model, wanted)
        time.sleep(1.2 * lasts_s * moments.random() ** 6)  # the log is written at its very beginning
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        now = aliases(registry, model)["production"]
        states.append(now == wanted)
        assert now in (before, wanted)
        began = time.monotonic()
        registry.promote(TENANT, model, version=wanted, who="ann", why="again")
        if not states[-1]:
            lasts_s = time.monotonic() - began  # as busy as the machine is now
        after = aliases(registry, model)
        assert (after["production"], after["previous"]) == (wanted, before)
        assert registry.history(TENANT, model)[-1].to == wanted
    assert chained(registry, model)
    assert {True, False} == set(states)


# A training as a run

HISTORY = [{"step": step, "loss": 4 / step, "eval_loss": 5 / step} for step in range(1, 701)]


def log(registry: MlflowRegistry, model: str) -> str:
    return registry.log_training(
        TENANT,
        model,
        fingerprint="sha256:feed",
        params={"stage": "sft", "lora_rank": 8, "lora_target": ["q_proj", "v_proj"]},
        history=HISTORY,
        tags={"dataset_digest": "sha256:d"},
    )


def test_a_training_is_logged_once_with_its_curves(server: MlflowServer, model: str) -> None:
    from mlflow import MlflowClient

    registry = registry_at(server.url, server)
    run_id = log(registry, model)
    assert log(registry, model) == run_id
    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"stage": "sft", "lora_rank": "8", "lora_target": '["q_proj", "v_proj"]'}
    points = client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(row["step"], row["loss"]) for row in HISTORY]
    version = registry.register(entry(model, training_run_id=run_id))
    assert client.get_model_version(f"{TENANT}.{model}", str(version.number)).run_id == run_id


def test_a_candidate_waits_from_its_registration_until_it_was_promoted(
    registry: MlflowRegistry, model: str
) -> None:
    def waits() -> int | None:
        all_waiting = {(each.tenant, each.model): each for each in registry.all_waiting()}
        version = registry.waiting(TENANT, model)
        assert all_waiting.get((TENANT, model)) == version
        return version.number if version else None

    assert waits() is None
    registry.register(entry(model, 1))
    assert waits() == 1
    registry.promote(TENANT, model, version=1, who="ann", why="good")
    assert waits() is None
    registry.register(entry(model, 2))
    assert waits() == 2
    registry.promote(TENANT, model, version=2, who="ann", why="better")
    registry.rollback(TENANT, model, who="ann", why="worse")
    assert waits() is None, "it had its promotion"
    registry.register(entry(model, 1))  # the data went back to what it was
    assert waits() is None, "it is in production"


# Cut off at any request


class Cut:
    """A proxy before the server that lets a number of requests through and then drops the connection.

    The last one let through reaches the server but its answer is lost, as when the caller is killed.
    """

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.left = 0
        self.tried = 0
        cut = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                cut.serve(self)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def serve(self, asked: BaseHTTPRequestHandler) -> None:
        asked.close_connection = True
        if self.left <= 0:
            return
        self.left -= 1
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0)) or None
        headers = {
            "Content-Type": asked.headers.get("Content-Type", "application/json"),
            "Authorization": asked.headers["Authorization"],
        }
        forwarded = urllib.request.Request(self.behind + asked.path, body, headers, method=asked.command)
        try:
            with urllib.request.urlopen(forwarded, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        if self.left > 0:
            asked.send_response(status)
            asked.send_header("Content-Length", str(len(text)))
            asked.end_headers()
            asked.wfile.write(text)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def cut(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cut = Cut(server.url)
    yield cut
    cut.close()


def test_registering_that_is_cut_off_anywhere_is_finished_by_the_next_try(
    cut: Cut, server: MlflowServer, registry: MlflowRegistry, model: str
) -> None:
    for moment in range(1, 40):
        each = entry(f"{model[-50:]}_{moment}")
        cut.left = moment
        try:
            registry_at(cut.url, server).register(each)
        except RegistryError:
            version = registry.register(each)
            assert (version.number, version.aliases) == (1, ("candidate",))
            assert len(registry.versions(TENANT, each.model)) == 1
            continue
        break
    assert moment > 4


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_moving_production_that_is_cut_off_anywhere_happened_or_did_not(
    cut: Cut, server: MlflowServer, registry: MlflowRegistry, action: str
) -> None:
    """And MLflow shows what happened as soon as the next one came."""

    def act(through: MlflowRegistry, model: str) -> RegisteredVersion:
        if action == "rollback":
            return through.rollback(TENANT, model, who="bob", why="bad")
        return through.promote(TENANT, model, version=3, who="bob", why="better")

    states = set()
    target = 1 if action == "rollback" else 3
    for moment in range(1, 40):
        model = f"cut_{action}_{moment}"
        for number in (1, 2, 3):
            registry.register(entry(model, number))
        for number in (1, 2):
            registry.promote(TENANT, model, version=number, who="ann", why="good")
        cut.left = moment
        with contextlib.suppress(RegistryError):
            act(registry_at(cut.url, server), model)
            break
        states.add(aliases(registry, model)["production"])
        act(registry, model)
        assert aliases(registry, model) == {"candidate": 3, "production": target, "previous": 2}
        assert [move.to for move in registry.history(TENANT, model)] == [1, 2, target]
        assert registry.differences(TENANT, model) == ()
    assert states == {target}, "the log has it before MLflow is asked"


def test_a_training_log_that_is_cut_off_anywhere_is_finished_by_the_next_try(
    cut: Cut, server: MlflowServer, model: str
) -> None:
    from mlflow import MlflowClient

    for moment in range(1, 40):
        cut.left = moment
        with contextlib.suppress(RegistryError):
            log(registry_at(cut.url, server), model)
            break
    assert moment > 4
    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    experiment = client.get_experiment_by_name(f"{TENANT}.{model}")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == len(HISTORY)


# The server


def test_an_absent_server_is_one_error_that_names_the_remedy(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match=f"MLflow at {nowhere} did not answer.*`llm-assets up`"):
        MlflowRegistry(
            tracking_uri=nowhere,
            state=LocalState(folder=tmp_path),
            promotions=str(tmp_path / "log"),
            signing_keys=str(tmp_path / "keys"),
        ).production(TENANT, "support_bot")


def test_starting_again_finds_the_server_that_runs(server: MlflowServer) -> None:
    first = server.start()
    assert server.start() == first
    assert (server.folder / "mlflow.db").exists()


def test_a_server_that_others_run_is_used_by_its_address_and_neither_started_nor_ended(
    server: MlflowServer, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("LLM_ASSETS_MLFLOW_URL", server.url)
    monkeypatch.setenv("LLM_ASSETS_MLFLOW_TOKEN_FILE", str(server.token_file))
    profile = profile_of(Settings(root=tmp_path))
    profile.mlflow.start()
    assert profile.mlflow.ensure_ready() == server.url
    assert profile.registry.register(entry(model)).aliases == ("candidate",)
    profile.mlflow.stop()
    assert server.ready()
    assert not profile.settings.processes.exists()


def test_a_server_that_others_run_and_that_does_not_answer_is_named_with_its_setting() -> None:
    existing = ExistingMlflow(url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=rf"{existing.url}.*Is LLM_ASSETS_MLFLOW_URL right"):
        existing.wait_ready(timeout_s=0.1)


def test_a_port_in_use_is_refused_by_number_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = MlflowServer(home=tmp_path, port=port, tokens=tmp_path / "tokens")
        with pytest.raises(RegistryError, match=f"port {port}.*LLM_ASSETS_MLFLOW_PORT"):
            other.start()
        assert not other.ready()


def test_a_server_that_ends_while_it_starts_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = MlflowServer(home=tmp_path, port=free_port(), tokens=tmp_path / "tokens")
    broken.folder.mkdir(parents=True)
    (broken.folder / "mlflow.db").write_text("this is not a database, and long enough to be looked at" * 20)
    broken.start()
    with pytest.raises(RegistryError, match=r"its process ended(.|\n)*file is not a database"):
        broken.wait_ready(timeout_s=60)
    broken.stop()


def test_no_address_is_kept_for_the_whole_process(registry: MlflowRegistry) -> None:
    registry.versions(TENANT, "support_bot")
    import mlflow

    assert registry.tracking_uri not in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())


def test_a_new_card_of_a_registered_version_is_followed(registry: MlflowRegistry, model: str) -> None:
    first = registry.register(entry(model, card_digest="sha256:card-1"))
    again = registry.register(entry(model, card_digest="sha256:card-2"))
    assert (again.number, again.tags["card_digest"]) == (first.number, "sha256:card-2")

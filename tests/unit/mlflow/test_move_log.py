"""The signed log and MLflow's own registry, changed by hand: the log counts, and what differs is named.

MLflow's store is opened in this process, without a server before it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resources.mlflow import promotion
from resources.mlflow.move_log import HISTORY_TAG, TRAFFIC_TAG, LoggedClient
from resources.mlflow.registry import MlflowRegistry, RegistryError
from resources.mlflow.traffic import MlflowTraffic
from tests.e2e.test_traffic import register

if TYPE_CHECKING:
    from mlflow import MlflowClient

TENANT = "team-a"
ANN: dict[str, Any] = {"who": "ann", "why": "a look"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def registry(home: Path) -> MlflowRegistry:
    return MlflowRegistry(
        tracking_uri=f"sqlite:///{home / 'mlflow.db'}",
        locks=str(home / "locks"),
        promotions=str(home / "promotions"),
        signing_keys=str(home / "keys"),
    )


@pytest.fixture
def client(registry: MlflowRegistry) -> "MlflowClient":
    """MLflow as somebody reaches it past the platform."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=registry.tracking_uri, registry_uri=registry.tracking_uri)


@pytest.fixture
def model(request: pytest.FixtureRequest, registry: MlflowRegistry) -> str:
    """Three versions; 1 and then 2 were promoted, 3 shares the traffic."""
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    model = name[-60:].strip("_").lower()
    for number in (1, 2, 3):
        register(registry, model, number)
    for number in (1, 2):
        registry.promote(TENANT, model, version=number, **ANN)
    MlflowTraffic(registry).change(TENANT, model, {"3": 10}, **ANN)
    assert registry.differences(TENANT, model) == ()
    return model


def served(registry: MlflowRegistry, model: str) -> list[tuple[int, int]]:
    return [(share.version.number, share.weight) for share in MlflowTraffic(registry).shares(TENANT, model)]


def last_tag(client: "MlflowClient", name: str, prefix: str) -> str:
    return max(tag for tag in client.get_registered_model(name).tags if tag.startswith(prefix))


def forge_a_history(client: "MlflowClient", name: str) -> None:
    text = client.get_registered_model(name).tags[last_tag(client, name, HISTORY_TAG)]
    at = "2126-01-01T00:00:00.000000Z"
    forged = json.loads(text) | {"to": 3, "who": "mallory", "at": at}
    client.set_registered_model_tag(name, HISTORY_TAG + at, json.dumps(forged))


def forge_a_move(client: "MlflowClient", name: str) -> None:
    """As if a promotion of version 3 had been cut off after MLflow was told."""
    text = client.get_registered_model(name).tags[last_tag(client, name, HISTORY_TAG)]
    forged = json.loads(text) | {"to": 3, "who": "mallory", "at": "2026-12-01T00:00:00.000000Z"}
    client.set_registered_model_tag(name, "move", json.dumps(forged))
    client.set_registered_model_alias(name, "production", "3")


def alter_a_history(client: "MlflowClient", name: str) -> None:
    tag = last_tag(client, name, HISTORY_TAG)
    text = client.get_registered_model(name).tags[tag]
    client.set_registered_model_tag(name, tag, text.replace('"ann"', '"mallory"'))


def forge_traffic(client: "MlflowClient", name: str) -> None:
    tag = last_tag(client, name, TRAFFIC_TAG)
    text = client.get_registered_model(name).tags[tag]
    client.set_registered_model_tag(name, tag, text.replace('"3": 10', '"3": 90'))


Hand = Callable[["MlflowClient", str], Any]
BY_HAND: dict[str, tuple[Hand, tuple[str, ...]]] = {
    "production moved": (
        lambda client, name: client.set_registered_model_alias(name, "production", "3"),
        ("MLflow's alias 'production' of {name} is version 3, the signed log says version 2",),
    ),
    "production deleted": (
        lambda client, name: client.delete_registered_model_alias(name, "production"),
        ("MLflow's alias 'production' of {name} is no version, the signed log says version 2",),
    ),
    "previous moved": (
        lambda client, name: client.set_registered_model_alias(name, "previous", "3"),
        ("MLflow's alias 'previous' of {name} is version 3, the signed log says version 1",),
    ),
    "previous deleted": (
        lambda client, name: client.delete_registered_model_alias(name, "previous"),
        ("MLflow's alias 'previous' of {name} is no version, the signed log says version 1",),
    ),
    "history deleted": (
        lambda client, name: client.delete_registered_model_tag(name, last_tag(client, name, HISTORY_TAG)),
        ("of {name} is gone, the signed log has it",),
    ),
    "history altered": (alter_a_history, ("of {name} was altered",)),
    "history forged": (forge_a_history, ("is in no signed log: nobody moved anything then",)),
    "a move forged": (
        forge_a_move,
        ("MLflow's alias 'production' of {name} is version 3, the signed log says version 2",),
    ),
    "traffic altered": (forge_traffic, ("of {name} was altered",)),
    "traffic deleted": (
        lambda client, name: client.delete_registered_model_tag(name, last_tag(client, name, TRAFFIC_TAG)),
        ("of {name} is gone, the signed log has it",),
    ),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_what_is_changed_by_hand_is_named_and_the_last_promotion_goes_on_being_served(
    registry: MlflowRegistry, client: "MlflowClient", model: str, what: str
) -> None:
    by_hand, told = BY_HAND[what]
    name = f"{TENANT}.{model}"
    by_hand(client, name)
    said = registry.differences(TENANT, model)
    assert len(said) == len(told)
    for sentence, expected in zip(said, told, strict=True):
        assert expected.format(name=name) in sentence
    assert set(said) <= set(registry.all_differences())
    assert served(registry, model) == [(2, 90), (3, 10)]
    assert [move.to for move in registry.history(TENANT, model)] == [1, 2]
    assert {move.who for move in registry.history(TENANT, model)} == {"ann"}

    registry.restore(TENANT, model)
    assert registry.differences(TENANT, model) == ()
    aliases = client.get_registered_model(name).aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {
        "candidate": 3,
        "production": 2,
        "previous": 1,
    }
    assert registry.rollback(TENANT, model, **ANN).number == 1


def test_a_rollback_goes_where_the_log_says_and_not_where_an_alias_was_moved_to(
    registry: MlflowRegistry, client: "MlflowClient", model: str
) -> None:
    client.set_registered_model_alias(f"{TENANT}.{model}", "previous", "3")
    assert registry.rollback(TENANT, model, **ANN).number == 1
    assert served(registry, model) == [(1, 100)]


def test_an_alias_set_by_hand_where_nothing_was_promoted_serves_nothing(
    registry: MlflowRegistry, client: "MlflowClient"
) -> None:
    register(registry, "never_promoted", 1)
    client.set_registered_model_alias(f"{TENANT}.never_promoted", "production", "1")
    assert served(registry, "never_promoted") == []
    assert registry.production(TENANT, "never_promoted") is None
    [said] = registry.differences(TENANT, "never_promoted")
    assert "is version 1, the signed log says no version" in said
    registry.promote(TENANT, "never_promoted", version=1, **ANN)
    assert registry.differences(TENANT, "never_promoted") == ()


def test_an_installation_older_than_its_log_adopts_what_mlflow_says_once(
    registry: MlflowRegistry, client: "MlflowClient", model: str, tmp_path: Path
) -> None:
    name = f"{TENANT}.{model}"
    older = registry.model_copy(update={"promotions": str(tmp_path / "log")})
    register(registry, f"{model[-50:]}_by_hand", 1)
    client.set_registered_model_alias(f"{TENANT}.{model[-50:]}_by_hand", "production", "1")
    assert served(older, model) == [(2, 90), (3, 10)], "with who shares its traffic"
    assert [move.to for move in older.history(TENANT, model)] == [1, 2], "and what was before"
    assert served(older, f"{model[-50:]}_by_hand") == [(1, 100)]
    assert older.differences(TENANT, f"{model[-50:]}_by_hand") == ()
    client.set_registered_model_alias(name, "production", "3")
    assert served(older, model) == [(2, 90), (3, 10)], "only once"
    registry.restore(TENANT, model)


@pytest.mark.parametrize("how", ["edited", "truncated", "another's signature"])
def test_a_log_that_was_altered_promotes_nothing_and_says_where(
    registry: MlflowRegistry, model: str, tmp_path: Path, how: str
) -> None:
    copy = tmp_path / "log"
    shutil.copytree(registry.promotions, copy)
    altered = registry.model_copy(update={"promotions": str(copy)})
    file = sorted((copy / "log" / TENANT).glob("*.jsonl"))[-1]
    lines = file.read_bytes().splitlines(keepends=True)
    if how == "edited":
        file.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"ann"', b'"eve"')]))
    elif how == "truncated":
        file.write_bytes(b"".join(lines[:-1]))
    else:
        altered = altered.model_copy(update={"signing_keys": str(tmp_path / "keys")})
    with pytest.raises(RegistryError, match=r"The signed log of team-a's promotions in .* was altered: "):
        altered.promote(TENANT, model, version=3, **ANN)
    assert registry.production(TENANT, model) is not None


class CutClient:
    """A client whose caller is killed before or after its call number `at` reached MLflow."""

    def __init__(self, client: Any, at: int, *, after: bool) -> None:
        self._client, self._left, self._after = client, at, after

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._client, name)

        def call(*values: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise KeyboardInterrupt
            answer = asked(*values, **options)
            if self._left == 0:
                raise KeyboardInterrupt
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_move_that_is_cut_off_at_any_call_happened_or_did_not_and_is_then_shown(
    registry: MlflowRegistry, client: "MlflowClient", model: str, after: bool
) -> None:
    name, target, outcomes = f"{TENANT}.{model}", 3, set()
    for at in range(1, 30):
        line = promotion.settle(LoggedClient(client, registry.move_log), registry.move_log, name)  # type: ignore[arg-type]
        move = promotion.new_move("promote", target, line, **ANN)
        try:
            promotion.carry_out(CutClient(client, at, after=after), registry.move_log, name, move)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            done = registry.move_log.line(client.get_registered_model(name)).aliases["production"] == target
            outcomes.add(done)
            assert registry.differences(TENANT, model) == ()
            assert "move" not in client.get_registered_model(name).tags
            if done:
                registry.promote(TENANT, model, version=2, **ANN)
            continue
        break
    assert outcomes == {True, False}
    assert at > 5

"""The signed log and MLflow's own registry, changed by hand: the log counts, and what differs is named.

MLflow's store is opened in this process, without a server before it.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_assets.cli.doctor import promotions
from resources.local.state import LocalState
from resources.mlflow.move_log import HISTORY_TAG, TRAFFIC_TAG
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
        state=LocalState(folder=home / "locks"),
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


def decided(registry: MlflowRegistry, model: str) -> list[object]:
    """All that anything is decided by: what is served, what is promoted next and whereto a rollback goes."""
    return [
        [
            (share.version.label, share.version.digest, share.version.source, share.weight)
            for share in MlflowTraffic(registry).shares(TENANT, model)
        ],
        [
            (each.label, each.digest, each.aliases, each.tags["risk_class"])
            for each in registry.versions(TENANT, model)
        ],
        [(move.who, move.why, move.at, move.overridden) for move in registry.history(TENANT, model)],
        [(change.who, change.why, change.at) for change in MlflowTraffic(registry).history(TENANT, model)],
        getattr(registry.waiting(TENANT, model), "label", None),
        [each.label for each in registry.all_waiting() if each.model == model],
    ]


def shown(client: "MlflowClient", name: str) -> object:
    """What MLflow shows, by label where numbers may change."""
    known = client.get_registered_model(name)
    versions = {int(each.version): each for each in client.search_model_versions(f"name = '{name}'")}
    return (
        {alias: versions[int(number)].tags["version"] for alias, number in known.aliases.items()},
        dict(known.tags),
        sorted((each.source, sorted(each.tags.items())) for each in versions.values()),
        (known.description or "").splitlines()[:3],
    )


Hand = tuple[str, str, str, tuple[Any, ...]]
"""What is done, what is to be named, and the call of MLflow's client."""
LATER = "2126-01-01T00:00:00.000000Z"


def aliases_and_tags_by_hand(client: "MlflowClient", name: str) -> Iterator[Hand]:
    """Every alias and every tag of a line moved, altered, deleted, and some set that nobody wrote."""
    known = client.get_registered_model(name)
    for alias, number in known.aliases.items():
        other = next(each for each in "123" if each != str(number))
        what, wanted = f"alias '{alias}' of {name} is", f"the signed log says version {number}"
        call = "set_registered_model_alias", (name, alias, other)
        yield f"{alias} moved", f"{what} version {other}, {wanted}", *call
        yield f"{alias} deleted", f"{what} no version, {wanted}", "delete_registered_model_alias", call[1][:2]
    for tag, text in known.tags.items():
        what = f"tag '{tag}' of {name}"
        yield f"{tag} deleted", f"{what} is gone", "delete_registered_model_tag", (name, tag)
        for altered in {f"{text}x", text.replace("ann", "eve"), text.replace(": 10", ": 90"), ""} - {text}:
            call = "set_registered_model_tag", (name, tag, altered)
            yield f"{tag} altered", f"{what} was altered", *call
    label = f"version 2 (20261121T184502.000000Z-1a2b3c4d) of {name}"
    for tag, text in client.get_model_version(name, "2").tags.items():
        what = f"tag '{tag}' of {label}"
        yield f"{tag} deleted", f"{what} is gone", "delete_model_version_tag", (name, "2", tag)
        altered_to = (name, "2", tag, f"{text}0")
        told = f"{what} was altered: the signed log has {text!r}"
        yield f"{tag} altered", told, "set_model_version_tag", altered_to
    for tag in ("metric.eval_accuracy", "promoted_by_nobody", "engine.vllm"):
        told = f"tag '{tag}' of {label} is in no signed log: it was set by hand"
        yield f"{tag} added", told, "set_model_version_tag", (name, "2", tag, "1")
    for kind in (HISTORY_TAG, TRAFFIC_TAG):
        text = max((tag, text) for tag, text in known.tags.items() if tag.startswith(kind))[1]
        for forged in (json.dumps(json.loads(text) | {"to": 3, "who": "mallory", "at": LATER}), "{", ""):
            told = f"tag '{kind}{LATER}' of {name} is in no signed log"
            yield f"{kind} forged", told, "set_registered_model_tag", (name, f"{kind}{LATER}", forged)
    told, source = f"of {name} is in no signed log: no run registered it", f"artifact://models/{TENANT}"
    label = "20261121T184501.000000Z-1a2b3c4d"
    yield "added", told, "create_model_version", (name, f"{source}/{name.partition('.')[2]}/{label}")


def test_whatever_is_changed_by_hand_decides_nothing_is_named_and_is_restored(
    registry: MlflowRegistry, client: "MlflowClient", model: str
) -> None:
    name, tried = f"{TENANT}.{model}", set()
    decisions, before = decided(registry, model), shown(client, name)
    for what, told, call, values in list(aliases_and_tags_by_hand(client, name)):
        getattr(client, call)(*values)
        tried.add(what)
        assert decided(registry, model) == decisions, what
        said = registry.differences(TENANT, model)
        assert any(told in sentence for sentence in said), (what, told, said)
        assert set(said) <= set(registry.all_differences()), what
        registry.restore(TENANT, model)
        assert registry.differences(TENANT, model) == (), what
        assert shown(client, name) == before, what
    assert len(tried) > 40
    assert registry.rollback(TENANT, model, **ANN).number == 1


GONE: dict[str, tuple[str, tuple[str, ...], str]] = {
    "the candidate": ("delete_model_version", ("3",), "has no version 3 ("),
    "what is in production": ("delete_model_version", ("2",), "has no version 2 ("),
    "what a rollback goes to": ("delete_model_version", ("1",), "has no version 1 ("),
    "all of it": ("delete_registered_model", (), "MLflow has no model "),
    "its name": ("rename_registered_model", ("team-a.renamed",), "MLflow has no model "),
}


@pytest.mark.parametrize("what", GONE)
def test_what_was_deleted_in_mlflow_is_named_goes_on_being_served_and_is_restored(
    registry: MlflowRegistry, client: "MlflowClient", model: str, what: str
) -> None:
    name, (call, values, told) = f"{TENANT}.{model}", GONE[what]
    decisions, before = decided(registry, model), shown(client, name)
    live, other = (share.version.label for share in MlflowTraffic(registry).shares(TENANT, model))
    getattr(client, call)(name, *values)
    assert decided(registry, model) == decisions
    assert [each for each in registry.differences(TENANT, model) if told in each and name in each]
    assert [each for each in registry.all_differences() if told in each and name in each]
    for again in (False, True):
        registry.restore(TENANT, model)
        assert registry.differences(TENANT, model) == ()
        assert decided(registry, model) == decisions, f"restored again: {again}"
        labels = {each.number: each.label for each in registry.versions(TENANT, model)}
        first, second = registry.history(TENANT, model)
        assert (labels[second.production], labels[second.to]) == (labels[first.to], live)  # type: ignore[index]
        (change,) = MlflowTraffic(registry).history(TENANT, model)
        assert [labels[int(number)] for number in change.weights] == [other]
        assert shown(client, name) == before
    assert registry.promote(TENANT, model, version=other, **ANN).label == other
    assert registry.rollback(TENANT, model, **ANN).label == live
    if what == "its name":
        client.delete_registered_model("team-a.renamed")


def test_a_run_that_registers_anew_what_was_deleted_in_mlflow_brings_it_back(
    registry: MlflowRegistry, client: "MlflowClient", model: str
) -> None:
    decisions = decided(registry, model)
    client.delete_model_version(f"{TENANT}.{model}", "3")
    register(registry, model, 3)
    assert registry.differences(TENANT, model) == ()
    assert decided(registry, model) == decisions
    client.delete_registered_model(f"{TENANT}.{model}")
    register(registry, model, 3)
    registry.restore(TENANT, model)
    assert registry.differences(TENANT, model) == ()
    assert decided(registry, model) == decisions


def test_doctor_names_differences_and_a_log_that_was_altered(
    registry: MlflowRegistry, client: "MlflowClient", model: str, tmp_path: Path
) -> None:
    found = promotions(registry, running=True)
    assert found.well
    assert "MLflow shows the same" in found.found
    client.set_registered_model_alias(f"{TENANT}.{model}", "production", "3")
    found = promotions(registry, running=True)
    assert not found.well
    assert f"MLflow's alias 'production' of {TENANT}.{model} is version 3" in found.found
    assert "`llm-assets history MODEL --tenant TENANT --restore`" in found.remedy
    assert "was not compared" in promotions(registry, running=False).found
    registry.restore(TENANT, model)
    shutil.copytree(registry.promotions, tmp_path / "log")
    file = sorted((tmp_path / "log" / "log" / TENANT).glob("*.jsonl"))[-1]
    file.write_bytes(file.read_bytes().replace(b'"ann"', b'"eve"'))
    found = promotions(replace(registry, promotions=str(tmp_path / "log")), running=False)
    assert not found.well
    assert "The signed log of team-a's promotions in" in found.remedy


def test_the_models_description_ends_with_its_moves_as_a_table(
    registry: MlflowRegistry, client: "MlflowClient", model: str
) -> None:
    name = f"{TENANT}.{model}"
    registry.rollback(TENANT, model, who="bob", why="it | <b>lies</b>\nagain")
    description = client.get_registered_model(name).description
    lines = description.splitlines()[description.splitlines().index("## Promotions") :]
    assert lines[2].startswith("| When (UTC) | What | From | To | Digest | Who | Why |")
    moves = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[4:]]
    assert [move[1:6] for move in moves] == [
        ["rollback", "2", "1", "`sha256:1`", "bob"],
        ["promote", "1", "2", "`sha256:2`", "ann"],
        ["promote", "", "1", "`sha256:1`", "ann"],
    ]
    assert moves[0][6] == r"it \| &lt;b&gt;lies&lt;/b&gt; again"
    register(registry, model, 3)
    assert client.get_registered_model(name).description == description, "a run leaves the table"
    for _ in range(12):
        registry.promote(TENANT, model, version=2, who="ann", why="x" * 300)
        registry.promote(TENANT, model, version=1, who="ann", why="y" * 300)
    description = client.get_registered_model(name).description
    assert len(description) <= 5000
    assert "yyy" in description.splitlines()[-1] or "xxx" in description.splitlines()[-1], "whole lines"


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
    older = replace(registry, promotions=str(tmp_path / "log"))
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
    altered = replace(registry, promotions=str(copy))
    file = sorted((copy / "log" / TENANT).glob("*.jsonl"))[-1]
    lines = file.read_bytes().splitlines(keepends=True)
    if how == "edited":
        file.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"ann"', b'"eve"')]))
    elif how == "truncated":
        file.write_bytes(b"".join(lines[:-1]))
    else:
        altered = replace(altered, signing_keys=str(tmp_path / "keys"))
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


@dataclass(frozen=True, kw_only=True)
class CutRegistry(MlflowRegistry):
    """Whose caller is killed at call number `at` of MLflow's client."""

    at: int
    after: bool

    @contextmanager
    def client(self, doing: str) -> Iterator["MlflowClient"]:
        with super().client(doing) as client:
            yield CutClient(client, self.at, after=self.after)  # type: ignore[misc]


@pytest.mark.parametrize("after", [False, True])
def test_a_move_that_is_cut_off_at_any_call_happened_or_did_not_and_is_then_shown(
    registry: MlflowRegistry, client: "MlflowClient", model: str, after: bool
) -> None:
    target, outcomes = 3, set()
    for at in range(1, 30):
        cut = CutRegistry(**vars(registry), at=at, after=after)
        try:
            cut.promote(TENANT, model, version=target, **ANN)
        except KeyboardInterrupt:
            production = registry.production(TENANT, model)
            assert production is not None
            outcomes.add(production.number == target)
            assert registry.differences(TENANT, model) == ()
            told = client.get_registered_model(f"{TENANT}.{model}").aliases["production"]
            assert int(told) == production.number
            if production.number == target:
                registry.promote(TENANT, model, version=2, **ANN)
            continue
        break
    assert outcomes == {True}, "it is in the log before MLflow is asked"
    assert at > 5

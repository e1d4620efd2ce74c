"""Promotions and rollbacks under a steady load of requests: real Envoy, the real filter, stand-ins for vLLM.

The stand-ins make it hard: a signal kills them at once with all that they were asked. The same with real
servers is in tests/e2e/test_moves.py.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from resources.gateway.api_keys import create_key
from resources.gateway.envoy import EnvoyGateway
from resources.gateway.journals import Journal
from resources.local.serving.local_serving import LocalServing
from tests.hammer import KINDS, Hammer
from tests.integration.door.test_publishing import ASKED, deploy, gateway, serving
from tests.integration.serving.conftest import TENANT, MakeServing, make_serving, store

__all__ = ["gateway", "make_serving", "serving", "store"]

HARD: dict[str, Any] = {"answer_s": 0.8, "token_s": 0.4}
MOVES = 4


@pytest.fixture
def key(gateway: EnvoyGateway) -> str:
    journal = Journal(gateway.folder / "keys.jsonl")
    return create_key(journal, tenant=TENANT, name="test", actor="a test", by="a test")[1]


def records(gateway: EnvoyGateway, kind: str) -> list[dict[str, Any]]:
    files = sorted((gateway.folder / "spool").glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["e"] == kind]


def test_no_request_fails_over_promotions_and_rollbacks_and_each_is_on_the_record_once(
    serving: LocalServing, gateway: EnvoyGateway, key: str, make_serving: MakeServing
) -> None:
    versions = [make_serving(version, behaviour=HARD) for version in ("v1", "v2")]
    deploy(serving, versions[0])
    with Hammer(gateway.address_of(TENANT), key, ASKED, threads_of_a_kind=3) as hammer:
        for move in range(1, MOVES + 1):
            deploy(serving, versions[move % 2])
            hammer.wait_for(15)
    assert hammer.failed == []
    assert {each.kind for each in hammer.answers} == set(KINDS)
    assert {each.digest for each in hammer.answers} == {"sha256:v1", "sha256:v2"}
    asked = [each.request_id for each in hammer.answers]
    assert Counter(record["id"] for record in records(gateway, "request")) == Counter(asked)
    answered = records(gateway, "response")
    assert Counter(record["id"] for record in answered) == Counter(asked)
    assert {record["status"] for record in answered} == {200}
    assert records(gateway, "aborted") == []


def test_an_old_server_ends_only_when_nobody_has_a_connection_to_it(
    serving: LocalServing, gateway: EnvoyGateway, key: str, make_serving: MakeServing, tmp_path: Path
) -> None:
    deploy(serving, make_serving("v1", behaviour={"answer_s": 3}))
    with Hammer(gateway.address_of(TENANT), key, ASKED, threads_of_a_kind=1) as hammer:
        hammer.wait_for(1)
        deploy(serving, make_serving("v2"))
        assert {s.attributes["version"] for s in serving.servers.of(TENANT, "support_bot")} == {"v2"}
    assert hammer.failed == []

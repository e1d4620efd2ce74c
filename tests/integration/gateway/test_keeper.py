"""The keeper as a process, beside a real gateway: what changes in the catalog counts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llm_assets.gateway.tenants import tenant_lines
from resources.gateway.api_keys import create_key
from resources.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.gateway.gateways import question
from tests.integration.gateway.whole_gateways import Deployment, WholeGateway, whole_gateway
from tests.servers.oidc_issuer import Issuer, issuing
from tests.servers.ports import free_port
from tests.unit.gateway.test_catalog_changes import TENANT, Followed

IN_TIME_S = 5.0  # two seconds, and what a busy machine adds
LIVE = [Deployment(tenant=name, model="support_bot") for name in ("team-a", "team-b")]


class Kept:
    """A gateway, its catalog, and the keeper's log."""

    def __init__(self, home: Path, gateway: WholeGateway) -> None:
        self.gateway, self.log = gateway, home / "keeper.log"
        self.catalog = Followed(home)
        self.environment = os.environ | {
            "LLM_ASSETS_ROOT": str(home),
            "LLM_ASSETS_CATALOG": str(self.catalog.folder),
            "LLM_ASSETS_HOME": str(home),
            "LLM_ASSETS_GATEWAY_PORT": str(gateway.port),
        }

    @contextmanager
    def keeper(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "llm_assets.gateway.keeper"]
            process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield process
            assert process.poll() is None, self.log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0, self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def ask(self, credential: str, tenant: str) -> int:
        return httpx.post(
            f"http://127.0.0.1:{self.gateway.port}/t/{tenant}/v1/chat/completions",
            json=question(),
            headers={"authorization": f"Bearer {credential}"},
        ).status_code

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


def seconds_until(ready: Callable[[], bool]) -> float:
    started = time.monotonic()
    wait_until(ready, what="what was changed", timeout_s=20, every_s=0.02)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    home = tmp_path_factory.mktemp("kept")
    with whole_gateway(home, LIVE) as gateway:
        yield Kept(home, gateway)


def with_issuer(issuer: Issuer, audience: str) -> str:
    return f"{TENANT}jwt: {{issuer: '{issuer.name}', audience: {audience}}}\n"


def test_what_changes_in_the_catalog_counts_at_the_gateway_in_seconds(kept: Kept) -> None:
    tenants = kept.catalog.folder / "tenants"
    _, key = create_key(kept.gateway.keys, tenant="team-a", name="ci", actor="ci", by="tests")
    with kept.keeper(), issuing() as issuer:
        wait_until(lambda: kept.ask(key, "team-a") == 200, what="the keeper", timeout_s=20)
        (tenants / "team-a.yaml").unlink()
        assert seconds_until(lambda: kept.ask(key, "team-a") == 401) < IN_TIME_S
        kept.catalog.write("tenants/team-a", TENANT)
        assert seconds_until(lambda: kept.ask(key, "team-a") == 200) < IN_TIME_S
        kept.catalog.write("tenants/team-b", with_issuer(issuer, "team-b"))
        token = issuer.token(aud="team-b", scope="model:* risk:*")
        assert seconds_until(lambda: kept.ask(token, "team-b") == 200) < IN_TIME_S
        assert token not in kept.log.read_text()
        kept.catalog.write("tenants/team-b", TENANT)
        assert seconds_until(lambda: kept.ask(token, "team-b") == 401) < IN_TIME_S


def test_a_broken_file_is_told_once_and_changes_nothing(kept: Kept) -> None:
    _, key = create_key(kept.gateway.keys, tenant="team-a", name="ci", actor="ci", by="tests")
    with kept.keeper():
        wait_until(lambda: kept.ask(key, "team-a") == 200, what="the keeper", timeout_s=20)
        kept.catalog.write("tenants/team-a", "owner: [")
        wait_until(lambda: kept.said("team-a.yaml:2: not YAML"), what="the log", timeout_s=5)
        time.sleep(1.5)
        assert kept.ask(key, "team-a") == 200
        assert kept.log.read_text().count("team-a.yaml:2: not YAML") == 1
    with kept.keeper():
        wait_until(lambda: kept.log.read_text().count("team-a.yaml:2:") == 2, what="the log", timeout_s=20)
        assert kept.ask(key, "team-a") == 200
        assert {line["tenant"] for line in tenant_lines(kept.gateway.tenants)} == {"team-a", "team-b"}
    kept.catalog.write("tenants/team-a", TENANT)


def test_the_last_keys_of_an_issuer_outlive_the_keeper_and_the_issuer(kept: Kept) -> None:
    port = free_port()
    with issuing(port) as issuer:
        kept.catalog.write("tenants/team-b", with_issuer(issuer, "team-b"))
        token = issuer.token(aud="team-b", scope="model:* risk:*")
        with kept.keeper():
            wait_until(lambda: kept.ask(token, "team-b") == 200, what="the issuer's keys", timeout_s=20)
    told = f"The issuer http://127.0.0.1:{port} does not answer"
    with kept.keeper():
        wait_until(lambda: kept.said(told), what="the log", timeout_s=20)
        assert kept.said("The last keys that it told go on.")
        assert kept.ask(token, "team-b") == 200
    kept.catalog.write("tenants/team-b", TENANT)


def test_a_gateway_that_does_not_answer_is_told_and_so_is_that_it_answers_again(kept: Kept) -> None:
    with kept.keeper():
        wait_until(lambda: kept.said("The gateway is well."), what="the log", timeout_s=20)
        kept.gateway.envoy.stop()
        wait_until(lambda: kept.said("The gateway is not well:"), what="the log", timeout_s=20)
        before = kept.log.read_text().count("The gateway is well.")
        kept.gateway.start()
        wait_until(
            lambda: kept.log.read_text().count("The gateway is well.") == before + 1,
            what="the log",
            timeout_s=20,
        )
    assert json.loads(kept.gateway.jwt_file.read_text())["resources"]

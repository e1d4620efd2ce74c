"""How the keeper asks the gateway for its health."""

import subprocess
from pathlib import Path

import pytest

from llm_assets.gateway.listening import health_client
from llm_assets.settings import Settings
from tests.servers.tls import SELF_SIGNED
from tests.unit.gateway.whole_gateways import Deployment, whole_gateway

LIVE = [Deployment(tenant="team-a", model="support_bot")]


def test_the_gateway_is_asked_for_its_health_over_tls_by_its_own_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", *SELF_SIGNED, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, "-subj", "/CN=llm.example.com"], check=True, capture_output=True)
    settings = Settings(root=tmp_path, catalog=tmp_path, home=tmp_path)
    with whole_gateway(tmp_path, LIVE, certificate=certificate, key=key) as gateway:
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_PORT", str(gateway.port))
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_CERTIFICATE", str(certificate))
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_KEY", str(key))
        with health_client(settings) as client:
            assert client.get("/healthz").json() == {"status": "ok"}

"""How the keeper asks the gateway for its health, over TLS and past a renewed certificate."""

import ssl
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from llm_assets.gateway.listening import Health
from llm_assets.installation.settings import Settings
from resources.gateway.errors import GatewayError
from resources.waiting import wait_until
from tests.integration.gateway.whole_gateways import Deployment, whole_gateway
from tests.servers.tls import SELF_SIGNED

LIVE = [Deployment(tenant="team-a", model="support_bot")]


def make_pair(certificate: Path, key: Path) -> None:
    made = ["openssl", *SELF_SIGNED, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, "-subj", "/CN=llm.example.com"], check=True, capture_output=True)


def renew(certificate: Path, key: Path) -> None:
    """As certbot does: a new pair, each file renamed into the other's place."""
    new = certificate.with_suffix(".new"), key.with_suffix(".new")
    make_pair(*new)
    new[0].rename(certificate)
    new[1].rename(key)


def shown(port: int) -> str:
    """The certificate that a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_a_renewed_certificate_counts_without_a_restart_and_the_keeper_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_pair(certificate, key)
    with whole_gateway(tmp_path, LIVE, certificate=certificate, key=key) as gateway:
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_PORT", str(gateway.port))
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_CERTIFICATE", str(certificate))
        monkeypatch.setenv("LLM_ASSETS_GATEWAY_KEY", str(key))
        settings = Settings(root=tmp_path, catalog=tmp_path, home=tmp_path)
        with closing(Health(settings)) as health:
            assert health.fault() is None
            assert shown(gateway.port) == certificate.read_text()
            renew(certificate, key)
            wait_until(
                lambda: shown(gateway.port) == certificate.read_text(), what="the new one", timeout_s=10
            )
            assert health.fault() is None, "the connection of before goes on"
            gateway.envoy.stop()
            assert health.fault() is not None
            gateway.start()
            assert health.fault() is None, "the certificate of now is trusted"


def test_a_key_of_another_certificate_is_refused_before_the_gateway_starts(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_pair(certificate, key)
    make_pair(tmp_path / "other.pem", key)
    with (
        pytest.raises(GatewayError, match=r"certificate\.pem with the key .*key\.pem: .*MISMATCH"),
        whole_gateway(tmp_path, LIVE, certificate=certificate, key=key),
    ):
        pass

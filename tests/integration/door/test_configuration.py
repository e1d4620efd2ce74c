"""The configuration as dictionaries, as Envoy's own check sees it, and behind TLS."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.durable_files import replace_json
from resources.gateway.cluster_file import ClusterFile
from resources.gateway.envoy import envoy_program
from resources.gateway.envoy_config import bootstrap
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.envoy_tls import secret_discovery
from resources.gateway.envoy_upstream import Listening, clusters, listening_in
from resources.gateway.errors import GatewayError
from resources.gateway.metrics import TOKEN_FILE
from resources.processes.temporary_folders import ADDRESS_BYTES
from tests.conftest import LONG_HOME
from tests.integration.door.conftest import MakeGateway, serve, settings_in
from tests.servers.echo import Echo
from tests.servers.ports import free_port
from tests.servers.tls import SELF_SIGNED


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, Any]:
    files = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    made = ["openssl", *SELF_SIGNED, "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [*made, "-keyout", str(files["key"]), "-out", str(files["certificate"])]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.parametrize("tls", [False, True])
def test_envoys_own_check_accepts_the_configuration(tmp_path: Path, pem: dict[str, Any], tls: bool) -> None:
    settings = settings_in(tmp_path / "home", **(pem if tls else {}))
    ClusterFile(settings.clusters).change(
        lambda _: {("team-a", "bot"): {f"d{number}": f"unix:{number}.sock" for number in range(1, 100)}}
    )
    replace_json(settings.jwt, {"resources": []})
    replace_json(settings.secret, secret_discovery(settings))
    replace_json(settings.folder / "bootstrap.json", bootstrap(settings))
    command: list[str | Path] = [
        envoy_program(),
        "--mode",
        "validate",
        "-c",
        settings.folder / "bootstrap.json",
    ]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=settings.folder)
    assert checked.returncode == 0, checked.stderr
    assert "OK" in checked.stdout


def pipes(config: Any) -> Iterator[str]:
    """Every unix socket in a configuration."""
    if isinstance(config, dict):
        yield from [config["pipe"]["path"]] if "pipe" in config else []
    for each in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from pipes(each)


def test_no_socket_of_envoys_has_the_path_of_the_state_folder_in_its_address(tmp_path: Path) -> None:
    home = tmp_path / "home".ljust(LONG_HOME, "x")
    found = list(pipes(bootstrap(settings_in(home, metrics_port=free_port()))))
    assert len(found) == 3
    assert not [path for path in found if str(home) in path or len(path) > ADDRESS_BYTES]


def test_no_tenant_and_no_secret_stands_in_the_bootstrap(tmp_path: Path, pem: dict[str, Any]) -> None:
    text = json.dumps(bootstrap(settings_in(tmp_path / "home", **pem)))
    assert "PRIVATE KEY" not in text
    assert "team-a" not in text


def test_the_metrics_have_a_door_of_their_own(make_gateway: MakeGateway, echo: Echo) -> None:
    port = free_port()
    gateway = make_gateway(metrics_port=port)
    serve(gateway, ("d1", echo.path))
    httpx.get(f"{gateway.url}/v1/x", headers={"x-deployment": "d1"}, trust_env=False)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.get("/metrics").status_code == 401
        token = (gateway.folder.parent / TOKEN_FILE).read_text()
        client.headers["authorization"] = f"Bearer {token}"
        assert "envoy_http_downstream_rq_total" in client.get("/metrics").text
        assert client.get("/metrics/audit").status_code == 503  # no collector runs
        assert client.get("/config_dump").status_code == 404


def test_the_filter_is_told_its_folder_and_domain_whatever_letters_they_have(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(domain='exa"mple.\\org\n]]')
    told = httpx.get(f"{gateway.url}/configured", trust_env=False).text
    assert told == f'{{"home":"{gateway.folder.parent}","domain":"exa"mple.\\org\n]]"}}'


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"host": "0.0.0.0"}, "does not listen at 0.0.0.0 without TLS"),
        ({"host": "my-machine"}, "'my-machine' is no IP address"),
        ({"certificate": Path("a.pem")}, "set both"),
        ({"certificate": Path("gone.pem"), "key": Path("gone.pem")}, "gone.pem does not exist"),
    ],
)
def test_settings_that_would_give_keys_away_are_refused(
    tmp_path: Path, changed: dict[str, Any], problem: str
) -> None:
    with pytest.raises(GatewayError, match=problem):
        GatewaySettings(folder=tmp_path, port=8080, **changed)


def test_addresses_are_read_as_they_were_written() -> None:
    known: Listening = {
        (tenant, "bot"): {f"{tenant}-{number}": f"unix:sockets/{number}.sock" for number in range(3)}
        for tenant in ("team-a", "team-b")
    }
    assert listening_in(json.loads(json.dumps(clusters(known, "7")))) == known


def test_over_tls_both_versions_of_http_answer_and_old_versions_of_tls_do_not(
    make_gateway: MakeGateway, echo: Echo, pem: dict[str, Any]
) -> None:
    gateway = make_gateway(**pem)
    serve(gateway, ("d1", echo.path))
    assert gateway.url.startswith("https://127.0.0.1:")
    for version in ("--http1.1", "--http2"):
        command = ["curl", "-s", version, "--cacert", str(pem["certificate"]), "-H", "x-deployment: d1"]
        command += ["-w", " %{http_version}", f"{gateway.url}/v1/x"]
        asked = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(asked.rpartition(" ")[0])["path"] == "/v1/x"
        assert asked.rpartition(" ")[2] == {"--http1.1": "1.1", "--http2": "2"}[version]
    old = ssl.create_default_context(cafile=str(pem["certificate"]))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError, match=r"(?i)protocol version|alert"):
        httpx.get(gateway.url, verify=old, trust_env=False)

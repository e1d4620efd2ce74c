"""A console's gate before a small application, behind the Envoy that stands there in operation."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from resources.consoles.consoles import Console
from resources.waiting import wait_until
from tests.servers.ports import free_port

ECHO = Path(__file__).with_name("echo_console.py")
READS = {"method": "GET", "url": "/page"}
CHANGES = {"method": "POST", "url": "/thing", "content": b"{}"}
COOKIE_NAMES = ("HttpOnly", "SameSite=Strict", "Path=/")


@dataclass(frozen=True)
class Running:
    console: Console
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, headers: dict[str, str], **question: Any) -> httpx.Response:
        with httpx.Client(base_url=self.console.url, trust_env=False) as client:
            return client.request(headers=headers, **question)

    @property
    def cookie(self) -> dict[str, str]:
        answer = httpx.get(self.console.link("full"), trust_env=False)
        return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    folder = home / ("deep" * 30)  # no address of a socket would hold it
    console = Console(name="echo", title="the echo", port=free_port(), folder=folder, tokens=home / "tokens")
    command = [sys.executable, str(ECHO), str(console.port), str(console.folder), str(console.tokens)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Running(console, process, home / "log")
    wait_until(lambda: answers(console), what="the echo", timeout_s=60)
    yield found
    process.terminate()
    process.wait()


def answers(console: Console) -> bool:
    try:
        return httpx.get(f"{console.url}/", headers=console.headers(), trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("question", [READS, CHANGES, {"method": "GET", "url": "/health"}], ids=str)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic eDp5"},
        {"Cookie": "llm_assets_echo=x"},
        {"Authorization": "Bearer ż"},
    ],
    ids=str,
)
def test_without_a_token_nothing_answers(
    running: Running, question: dict[str, Any], headers: dict[str, str]
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = running.ask(encoded, **question)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert "`llm-assets links` prints a link" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_token_opens_it_in_a_header_whatever_the_case_of_its_scheme(running: Running) -> None:
    token = running.console.token("full")
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert running.ask({"Authorization": f"{scheme} {token}"}, **CHANGES).json()["access"] == "full"


def test_a_link_sets_a_cookie_and_leads_to_the_clean_address(running: Running) -> None:
    link = running.console.link("full", "/page?view=a%20b")
    answer = httpx.get(link, trust_env=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/page?view=a+b"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for part in COOKIE_NAMES:
        assert part in answer.headers["set-cookie"]
    assert running.console.token("full") not in str(answer.headers)
    asked = running.ask(running.cookie, **READS)
    assert asked.json() == {"method": "GET", "path": "/page", "access": "full", "cookie": "", "token": False}


def test_the_fragment_of_a_page_stays_behind_the_token(running: Running) -> None:
    token = running.console.token("read-only")
    assert running.console.link("read-only", "/#/models").endswith(f"/?token={token}#/models")


@pytest.mark.parametrize("path", ["//evil.example.com", "/%5Cevil.example.com", "/%2F%2Fevil.example.com"])
def test_a_link_leads_nowhere_else(running: Running, path: str) -> None:
    answer = httpx.get(f"{running.console.url}{path}?token={running.console.token('full')}", trust_env=False)
    address = httpx.URL(running.console.url).join(answer.headers["location"])
    assert (address.host, address.port) == ("127.0.0.1", running.console.port)
    assert not answer.headers["location"].startswith(("//", "/\\"))


def test_a_link_with_a_wrong_token_is_told_so(running: Running) -> None:
    answer = httpx.get(f"{running.console.url}/?token=x", trust_env=False)
    assert answer.status_code == 401
    assert "no longer, a token of it" in answer.text


def test_a_token_in_the_address_of_a_post_opens_nothing(running: Running) -> None:
    answer = running.ask({}, method="POST", url=f"/thing?token={running.console.token('full')}")
    assert answer.status_code == 401


def test_the_read_only_token_reads(running: Running) -> None:
    headers = running.console.headers("read-only")
    assert running.ask(headers, **READS).json()["access"] == "read-only"
    refused = running.ask(headers, **CHANGES)
    assert (refused.status_code, refused.text) == (
        403, "This was asked to be read only: POST /thing may change something.\n",
    )  # fmt: skip


def test_what_is_read_only_has_a_limited_body(running: Running) -> None:
    headers = running.console.headers("read-only")
    assert running.ask(headers, method="POST", url="/page", content=b"x" * (2**20 + 1)).status_code == 413
    assert running.ask(headers, method="POST", url="/thing", content=b"x" * 2**20).status_code == 403


def fetched(site: str, mode: str, dest: str) -> dict[str, str]:
    """What browsers say of a request."""
    return {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}


OWN = {"Origin": "{url}", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    ("headers", "question", "status"),
    [
        (OWN, CHANGES, 200),
        (OWN, READS, 200),
        ({}, READS, 200),
        ({"Origin": "https://evil.example.com"}, READS, 403),
        ({"Origin": "https://evil.example.com"}, CHANGES, 403),
        ({"Origin": "null"}, CHANGES, 403),
        ({"Origin": "http://127.0.0.1:1"}, CHANGES, 403),  # another program of this machine
        ({}, CHANGES, 403),  # a browser that says nothing
        (fetched("cross-site", "no-cors", "image"), READS, 403),
        (fetched("same-site", "cors", "empty"), READS, 403),
        (fetched("same-site", "navigate", "iframe"), READS, 403),
        (fetched("same-site", "navigate", "document"), READS, 200),
        (fetched("cross-site", "navigate", "document"), {"method": "GET", "url": "/changing"}, 403),
        ({"Host": "evil.example.com"}, READS, 403),
        ({"Host": "127.0.0.1.evil.example.com:80"}, READS, 403),
        ({"Host": "localhost:3000"}, READS, 200),  # by a tunnel
        ({"Host": "[::1]:3000"}, READS, 200),
        ({"Host": "10.0.0.1"}, READS, 403),
    ],
    ids=str,
)  # fmt: skip
def test_only_the_console_s_own_pages_ask_with_its_cookie(
    running: Running, headers: dict[str, str], question: dict[str, Any], status: int
) -> None:
    said = {name: value.format(url=running.console.url) for name, value in headers.items()}
    assert running.ask({**running.cookie, **said}, **question).status_code == status


def test_the_host_and_the_origin_count_with_a_token_too(running: Running) -> None:
    for foreign in ({"Host": "evil.example.com"}, {"Origin": "https://evil.example.com"}):
        assert running.ask({**running.console.headers(), **foreign}, **CHANGES).status_code == 403
        assert httpx.get(running.console.link("full"), headers=foreign, trust_env=False).status_code in (
            303,
            403,
        )


def test_get_changes_nothing_whatever_the_token(running: Running) -> None:
    assert running.ask(running.console.headers(), method="GET", url="/changing").status_code == 403


def test_tokens_are_private_long_and_of_one_console(running: Running, tmp_path: Path) -> None:
    values = {running.console.token("full"), running.console.token("read-only")}
    other = Console(name="other", title="other", port=1, folder=tmp_path, tokens=running.console.tokens)
    values |= {other.token("full"), other.token("read-only")}
    assert len(values) == 4
    assert min(map(len, values)) >= 43  # 256 bits in base64
    for file in running.console.tokens.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.console.tokens.stat().st_mode) == 0o700
    assert running.ask(other.headers(), **READS).status_code == 401


def test_nothing_that_was_asked_stands_in_a_log_or_an_argument(running: Running) -> None:
    tokens = [running.console.token(access) for access in ("full", "read-only")]  # type: ignore[arg-type]
    httpx.get(running.console.link("full"), trust_env=False)
    running.ask({"Referer": running.console.link("full"), **running.console.headers()}, **READS)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert not any(token in arguments for token in tokens)
    assert not any(token in running.log.read_text() for token in tokens)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_another_user_cannot_open_the_socket(running: Running) -> None:
    code = (
        "import os, socket, sys; folder = os.open(sys.argv[1], os.O_RDONLY); os.setuid(65534)\n"
        "socket.socket(socket.AF_UNIX).connect(f'/proc/self/fd/{folder}/app.sock')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(running.console.folder)], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in done.stderr


def test_neither_outlives_the_other(tmp_path: Path) -> None:
    import psutil

    for killed in ("the server", "Envoy"):
        folder = tmp_path / killed
        console = Console(name="echo", title="the echo", port=free_port(), folder=folder, tokens=tmp_path)
        command = [sys.executable, str(ECHO), str(console.port), str(console.folder), str(console.tokens)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(lambda: answers(console), what="the echo", timeout_s=60)  # noqa: B023
        [envoy] = psutil.Process(server.pid).children()
        (server if killed == "the server" else envoy).kill()
        server.wait(timeout=20)
        wait_until(lambda: not envoy.is_running(), what="the end of Envoy", timeout_s=20)  # noqa: B023

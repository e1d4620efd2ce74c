"""Bills of materials say what the locks say, and an audit that could not be made does not pass for one."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from images import supply_chain
from images.locks import LOCKS as ALL_LOCKS
from images.supply_chain import NOT_AUDITED, audit, write_boms
from tests.conftest import ROOT

LOCK = """# a lock
idna==3.10 \\
    --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3
    # via httpx
torch===2.13.0+cpu \\
    --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d4
"""


class Database(BaseHTTPRequestHandler):
    """A stand-in for OSV's API: one vulnerability of idna 3.10, where it is told to know it."""

    knows = False
    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        package = query["package"]["name"], query["version"]
        self.asked.append(package)
        found = (
            {"vulns": [{"id": "PYSEC-1", "summary": "", "affected": []}]}
            if self.knows and package[0] == "idna"
            else {}
        )
        answer = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Database]]:
    handler = type("Asked", (Database,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        yield handler
        server.shutdown()


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images, of which one has another version of idna."""
    for name, text in (("one", LOCK), ("two", LOCK.replace("3.10", "3.11"))):
        (tmp_path / f"{name}.lock.txt").write_text(text)
    locks = {name: str(tmp_path / f"{name}.lock.txt") for name in ("one", "two")}
    monkeypatch.setattr(supply_chain, "LOCKS", locks)


def test_each_package_of_each_lock_is_asked_for_and_nothing_known_is_told(
    database: type[Database], locks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(required=True) == 0
    assert set(database.asked) == {("idna", "3.10"), ("idna", "3.11"), ("torch", "2.13.0")}
    assert "one: 2 packages, 0 known vulnerabilities\ntwo: 2 packages, 0 known" in capsys.readouterr().out


def test_a_known_vulnerability_fails_and_is_named_at_its_image(
    database: type[Database], locks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    database.knows = True
    assert audit(required=False) == 1
    assert "two: 2 packages, 1 known vulnerabilities\n  idna 3.11: PYSEC-1" in capsys.readouterr().out


@pytest.mark.parametrize(("required", "code"), [(False, 0), (True, 2)])
def test_without_a_database_it_says_that_nothing_was_audited(
    locks: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    required: bool,
    code: int,
) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    assert audit(required=required) == code
    said = capsys.readouterr().out
    assert said.startswith(NOT_AUDITED)
    assert "known vulnerabilities" not in said


def test_a_bill_of_materials_names_each_package_with_version_and_hash(locks: None, tmp_path: Path) -> None:
    del supply_chain.LOCKS["two"]
    assert write_boms(tmp_path / "sbom") == 0
    bom = json.loads((tmp_path / "sbom" / "one.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    assert {each["purl"] for each in bom["components"]} == {
        "pkg:pypi/idna@3.10",
        "pkg:pypi/torch@2.13.0%2Bcpu",
    }
    (reference,) = bom["components"][0]["externalReferences"]
    assert reference["hashes"][0]["content"].startswith("946d195a0d25")
    assert bom["metadata"]["component"]["name"] == "llm-assets"


def test_every_image_s_lock_is_among_them() -> None:
    of_images = {
        lock
        for lock in ALL_LOCKS
        if lock.startswith("images/") and "/dev." not in lock and "bootstrap" not in lock
    }
    assert set(supply_chain.LOCKS.values()) == of_images


def test_make_check_audits_and_make_audit_requires_it() -> None:
    for target, command in (
        ("check", "supply_chain.py audit"),
        ("audit", "supply_chain.py audit --required"),
    ):
        said = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert command in said.stdout

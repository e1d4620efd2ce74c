"""Signing without a key of one's own: as a workload's identity, through a stand-in for Sigstore."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore
from resources.signing.signatures import SignatureError, Signer, Verifier
from resources.signing.signers import sigstore_identities
from tests.servers.sigstore_stand_in import IDENTITY, ISSUER, REQUEST_TOKEN, Sigstore, serve
from tests.unit.signing.conftest import publish


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture(scope="module")
def url(sigstore: Sigstore) -> Iterator[str]:
    with serve(sigstore) as url:
        yield url


@pytest.fixture
def setting(sigstore: Sigstore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """LLM_ASSETS_SIGNER, within a workflow of GitHub Actions."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{url}/token")
    path = tmp_path / "trust.json"
    path.write_text(json.dumps(sigstore.trust_config(url)))
    return f"sigstore:{path}"


@pytest.fixture
def signed(artifact: Artifact, keys: Path, setting: str) -> bytes:
    return Signer(keys=keys, setting=setting).sign(artifact)


def trusting(keys: Path, setting: str, *named: str) -> Verifier:
    return Verifier(keys=keys, identities=sigstore_identities(",".join(named), setting))


def test_a_workload_signs_as_itself_and_counts_where_it_is_named(
    artifact: Artifact, keys: Path, setting: str, signed: bytes, sigstore: Sigstore
) -> None:
    before = len(sigstore.entries)
    bundle = Signer(keys=keys, setting=setting).sign(artifact)
    assert len(sigstore.entries) == before + 1  # in the public log, for ever
    verifier = trusting(keys, setting, f"someone@example.com={ISSUER}", f"{IDENTITY}={ISSUER}")
    found = verifier.verify(artifact, bundle)
    assert found.signer == f"{IDENTITY} ({ISSUER})"
    assert found.at.endswith("Z")


@pytest.mark.parametrize(
    "named", [f"{IDENTITY}=https://accounts.google.com", f"https://github.com/x={ISSUER}"]
)
def test_another_identity_or_issuer_does_not_count(
    artifact: Artifact, keys: Path, setting: str, signed: bytes, named: str
) -> None:
    with pytest.raises(SignatureError, match="nobody who is trusted here"):
        trusting(keys, setting, named).verify(artifact, signed)


def test_a_signature_of_another_artifact_is_refused_by_name(
    store: ArtifactStore, keys: Path, setting: str, signed: bytes, tmp_path: Path
) -> None:
    other = publish(store, tmp_path / "other", note="another")
    with pytest.raises(SignatureError, match="altered after it was signed"):
        trusting(keys, setting, f"{IDENTITY}={ISSUER}").verify(other, signed)


def _payload(bundle: dict[str, Any]) -> None:
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


def _time(bundle: dict[str, Any]) -> None:
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["integratedTime"] = str(int(entry["integratedTime"]) - 1)


def _checkpoint(bundle: dict[str, Any]) -> None:
    proof = bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["checkpoint"]["envelope"] = proof["checkpoint"]["envelope"].replace("\n1\n", "\n2\n")


@pytest.mark.parametrize("change", [_payload, _time, _checkpoint])
def test_nothing_of_a_signature_can_be_changed(
    artifact: Artifact, keys: Path, setting: str, signed: bytes, change: Any
) -> None:
    bundle = json.loads(signed)
    change(bundle)
    with pytest.raises(SignatureError, match="nobody who is trusted here"):
        trusting(keys, setting, f"{IDENTITY}={ISSUER}").verify(artifact, json.dumps(bundle).encode())


def test_the_log_of_another_sigstore_does_not_count(
    artifact: Artifact, keys: Path, setting: str, signed: bytes, url: str
) -> None:
    Path(setting.removeprefix("sigstore:")).write_text(json.dumps(Sigstore().trust_config(url)))
    with pytest.raises(SignatureError, match="nobody who is trusted here"):
        trusting(keys, setting, f"{IDENTITY}={ISSUER}").verify(artifact, signed)


@pytest.mark.parametrize("service", ["fulcio", "rekor"])
def test_a_service_that_is_down_is_one_clear_error(
    artifact: Artifact, keys: Path, setting: str, sigstore: Sigstore, service: str
) -> None:
    sigstore.down.add(service)
    try:
        with pytest.raises(SignatureError, match="could not be signed by LLM_ASSETS_SIGNER=sigstore"):
            Signer(keys=keys, setting=setting).sign(artifact)
    finally:
        sigstore.down.clear()


def test_a_trust_configuration_that_is_none_is_an_error(artifact: Artifact, keys: Path, setting: str) -> None:
    Path(setting.removeprefix("sigstore:")).write_text("{}")
    with pytest.raises(SignatureError, match="trust configuration is not one"):
        Signer(keys=keys, setting=setting).sign(artifact)

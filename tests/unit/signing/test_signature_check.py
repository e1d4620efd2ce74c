"""What the check on a merged model says, and what it lets through."""

import dagster as dg
import pytest

from llm_assets.assets.signature_checks import signature_result
from llm_assets.catalog.tenants import TenantEntry
from resources.artifact_store.artifacts import Artifact
from resources.signing.signatures import Signer, Verifier

BLOCKS, WARNS = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def tenant(signatures: str) -> TenantEntry:
    values = {"name": "team-a", "owner": "team:team-a", "models": [], "signatures": signatures}
    return TenantEntry.model_validate(values)


def test_a_signed_model_passes_and_names_its_signer(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    result = signature_result(tenant("required"), verifier, artifact, signer.sign(artifact))
    assert result.passed
    assert str(result.metadata["llm/signed_by"].value).startswith("key ")


@pytest.mark.parametrize(("signatures", "severity"), [("required", BLOCKS), ("optional", WARNS)])
def test_an_unsigned_model_blocks_where_signatures_are_required(
    artifact: Artifact, verifier: Verifier, signatures: str, severity: dg.AssetCheckSeverity
) -> None:
    result = signature_result(tenant(signatures), verifier, artifact, None)
    assert (result.passed, result.severity) == (False, severity)
    assert "is not signed" in str(result.description)


@pytest.mark.parametrize("signatures", ["required", "optional"])
def test_an_altered_model_blocks_everywhere(artifact: Artifact, verifier: Verifier, signatures: str) -> None:
    result = signature_result(tenant(signatures), verifier, artifact, b"{}")
    assert (result.passed, result.severity) == (False, BLOCKS)

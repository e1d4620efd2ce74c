"""A tenant that demands signatures: what is unsigned or altered is refused, and signed again."""

import json
from pathlib import Path

from resources.artifact_store.artifacts import SIGNATURE_NAME, Line
from resources.artifact_store.store import ArtifactStore
from tests.conftest import Project
from tests.stored import folder_of

MODEL = ("support_bot", "--tenant", "team-a")


def demand_signatures(project: Project) -> None:
    tenant = project.settings.catalog / "tenants" / "team-a.yaml"
    tenant.write_text(tenant.read_text() + "signatures: required\n")


def every_version_is_signed_by_one_key(project: Project) -> None:
    found = json.loads(project.run("verify", *MODEL, "--json"))
    collections = [each["artifact"].split("/")[2] for each in found]
    assert collections == ["models", "adapters", "datasets", "base_models", "cards"]
    assert len({each["signer"] for each in found}) == 1
    assert found[0]["signer"].startswith("key ")


def unsigned_and_altered_versions_are_refused(project: Project) -> None:
    """The oldest version loses its signature, gets an altered one, and is signed again."""
    signature = _signature_of_the_oldest(project)
    good = signature.read_bytes()
    signature.unlink()
    printed = project.run("rollback", *MODEL, "--why", "a test", expect=1)
    assert "signature: " in printed
    assert "llm-assets sign support_bot --tenant team-a" in printed
    signature.write_bytes(good.replace(b"payload", b"payl0ad"))
    assert "was altered after it was signed" in project.run(
        "promote", *MODEL, "1", "--force", "--why", "x", expect=1
    )
    signature.unlink()
    assert "Signed artifact://models/team-a/support_bot/" in project.run("sign", *MODEL, "1")


def _signature_of_the_oldest(project: Project) -> Path:
    store = ArtifactStore(url=project.settings.store_url)
    *_, oldest = store.versions(Line(collection="models", tenant="team-a", name="support_bot"))
    return folder_of(store, oldest) / SIGNATURE_NAME

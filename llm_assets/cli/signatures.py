"""`llm-assets verify | sign`: is a version, with all that it was made from, what it was, and who says so."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer
from rich.table import Table
from rich.text import Text

from llm_assets.catalog.tenants import TenantEntry
from llm_assets.cli.options import AsJson, Model, Tenant
from llm_assets.cli.output import output
from llm_assets.cli.versions import Version, named_or_production, with_registry
from llm_assets.made_from import lineage_of
from llm_assets.signature_policy import bundle_of, require_signature, sign_published, signer_of, verifier_of
from llm_assets.version_cards import card_of
from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.errors import LlmAssetsError
from resources.mlflow.registry import RegisteredVersion
from resources.signing.signatures import Verifier

SHOWN_KEY = len("key ") + 16  # of 64 digits; --json has them all


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one artifact. `fault` is empty where nothing is wrong."""

    artifact: str
    digest: str
    files: int
    size_bytes: int
    signer: str
    signed_at: str
    fault: str


def verify(model: Model, tenant: Tenant, version: Version = None, as_json: AsJson = False) -> None:
    """Compares every byte of a version, of what it was made from and of its card, and says who signed it.

    Example: `llm-assets verify support_bot --tenant team-a`
    """
    here, registry = with_registry(model, tenant)
    wanted = named_or_production(registry, model, tenant, version)
    store, verifier = here.profile.store, verifier_of(here.settings)
    owner = here.catalog.tenants[tenant]
    found = [_finding(owner, verifier, store, each, wanted) for each in _made_of(store, wanted.source)]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        _show(found, wanted)
    if any(each.fault for each in found):
        raise typer.Exit(1)


def sign(model: Model, tenant: Tenant, version: Version = None) -> None:
    """Signs a version, and what it was made from, that was published before signing began.

    What is published now is signed by itself. Every byte is compared with its manifest first; what has a
    signature already, good or bad, is left alone.

    Example: `llm-assets sign support_bot --tenant team-a 3`
    """
    here, registry = with_registry(model, tenant)
    store, signer = here.profile.store, signer_of(here.settings)
    line = Line(collection="models", tenant=tenant, name=model)
    published = next((each for each in store.versions(line) if each.version == version), None)
    source = published.uri if published else named_or_production(registry, model, tenant, version).source
    for artifact in _made_of(store, source):
        if bundle_of(store, artifact) is None:
            sign_published(store, signer, artifact)
            output().print(f"Signed {artifact.uri}")


def _made_of(store: ArtifactStore, source: str) -> Iterator[Artifact]:
    lineage = lineage_of(store.get, store.get(source))
    yield from (lineage.merged, lineage.adapter, lineage.dataset, lineage.base)
    if (card := card_of(store, lineage.merged.uri, lineage.merged.digest)) is not None:
        yield card


def _finding(
    tenant: TenantEntry,
    verifier: Verifier,
    store: ArtifactStore,
    artifact: Artifact,
    version: RegisteredVersion,
) -> Finding:
    signed, fault = None, ""
    try:
        store.verify(artifact)
        signed = require_signature(tenant, verifier, artifact, bundle_of(store, artifact))
        if artifact.uri == version.source and artifact.digest != version.digest:
            fault = f"{artifact.uri} has the digest {artifact.digest}, registered was {version.digest}."
    except LlmAssetsError as error:
        fault = str(error)
    return Finding(
        artifact=artifact.uri,
        digest=artifact.digest,
        files=len(artifact.files),
        size_bytes=artifact.size_bytes,
        signer=signed.signer if signed else "",
        signed_at=signed.at if signed else "",
        fault=fault,
    )


def _show(found: list[Finding], version: RegisteredVersion) -> None:
    console = output()
    console.print(f"Version {version.number} ({version.label}), registered as {version.digest}")
    table = Table("Artifact", "Files", "MB", "Bytes and signature", box=None, pad_edge=False)
    for each in found:
        name = each.artifact.removeprefix("artifact://").rpartition("/")[0]
        table.add_row(name, str(each.files), f"{each.size_bytes / 1e6:.1f}", _state(each))
    console.print(table)
    for each in found:
        if each.fault:
            console.print(each.fault, style="red", highlight=False, markup=False, soft_wrap=True)


def _state(found: Finding) -> Text:
    if found.fault:
        return Text("see below", style="red")
    if not found.signer:
        return Text.assemble("as published; ", ("not signed", "yellow"))
    signer = f"{found.signer[:SHOWN_KEY]}…" if found.signer.startswith("key ") else found.signer
    return Text(f"as published; signed by {signer} {found.signed_at}")

"""Whose signature an artifact needs before it may serve a tenant, and where a signature lies in the store."""

from llm_assets.catalog.tenants import TenantEntry
from llm_assets.installation.settings import Settings
from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore
from resources.signing.signatures import SignatureError, SignedBy, Signer, UnsignedError, Verifier
from resources.signing.signers import sigstore_identities


def signer_of(settings: Settings) -> Signer:
    """Who signs what this installation publishes."""
    return Signer(keys=settings.keys, setting=settings.signer)


def verifier_of(settings: Settings) -> Verifier:
    """Whose signatures this installation trusts."""
    identities = sigstore_identities(settings.trusted_identities, settings.signer)
    return Verifier(keys=settings.keys, identities=identities)


def require_signatures(
    tenant: TenantEntry, verifier: Verifier, store: ArtifactStore, *artifacts: Artifact
) -> None:
    """Refuses what may not serve that tenant; see `require_signature`."""
    for artifact in artifacts:
        require_signature(tenant, verifier, artifact, bundle_of(store, artifact))


def require_signature(
    tenant: TenantEntry, verifier: Verifier, artifact: Artifact, bundle: bytes | None
) -> SignedBy | None:
    """Who signed it; None for an unsigned artifact of a tenant that demands no signatures.

    Raises:
        SignatureError: It is signed, but altered or by nobody who is trusted; or it is unsigned and the
            tenant's `signatures` is `required`.
    """
    try:
        return verifier.verify(artifact, bundle)
    except UnsignedError as error:
        if tenant.signatures == "optional":
            return None
        raise SignatureError(
            f"{error} {tenant.name} demands signatures (`signatures` in catalog/tenants/{tenant.name}.yaml)."
        ) from error


def bundle_of(store: ArtifactStore, artifact: Artifact) -> bytes | None:
    """The signature that was stored with an artifact, if any."""
    return store.signature(artifact)


def sign_published(store: ArtifactStore, signer: Signer, artifact: Artifact) -> None:
    """Signs what was published without a signature, after every byte was compared with the manifest."""
    store.attach_signature(artifact, signer.sign(store.verify(artifact)))

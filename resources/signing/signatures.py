"""Signatures of artifacts, in the format of OpenSSF model-signing.

A signature covers the SHA-256 of every file of an artifact *and of its manifest*, which says whose artifact
it is (address) and everything that is known about it (attributes). The digests are those taken when the
artifact was published: nothing is read a second time. It lies beside the manifest as `model.sig`, a Sigstore
bundle that anybody can check without this platform:

    model_signing verify key <folder> --signature <folder>/model.sig --public_key <key id>.pub

model-signing (with sigstore and cryptography, half a second to import) is loaded inside functions.
Does not cover: that the files have the digests that the manifest gives them (the artifact store verifies
that), and when an artifact was signed, beyond the signer's word, unless the signer is Sigstore.
"""

import base64
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.artifact_store.artifacts import MANIFEST_NAME, SIGNATURE_NAME, Artifact, manifest_text
from resources.signing.keys import SignatureError, TrustedKey, trusted_keys
from resources.signing.signers import SigstoreIdentity, model_signer

if TYPE_CHECKING:
    from model_signing._signing.signing import Payload
    from model_signing.manifest import Manifest

__all__ = ["SIGNATURE_NAME", "SignatureError", "SignedBy", "Signer", "UnsignedError", "Verifier"]

SIGNED_AT = "signedAt"  # in the signed predicate; verifiers ignore fields that they do not know


class UnsignedError(SignatureError):
    """There is no signature at all."""


@dataclass(frozen=True, kw_only=True)
class SignedBy:
    """A signature that holds. `signer` is a key id, or who Sigstore says it was; `at` is UTC, ISO 8601."""

    signer: str
    at: str


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs artifacts with the key in `keys`, or as `setting` says (see `resources/signing/signers.py`)."""

    keys: Path
    setting: str = "key"

    def sign(self, artifact: Artifact) -> bytes:
        """The signature, to be stored as `SIGNATURE_NAME` beside the manifest.

        Raises:
            SignatureError: The key cannot be used; names it and the remedy.
        """
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        kind = self.setting.partition(":")[0]  # the rest may hold a PIN
        with _explained(f"{artifact.uri} could not be signed by LLM_ASSETS_SIGNER={kind}"):
            signer = model_signer(self.setting, self.keys)
            return _written(signer.sign(_payload(artifact, at)).write)


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Checks signatures against the public keys in `keys` and the Sigstore identities that are trusted."""

    keys: Path
    identities: tuple[SigstoreIdentity, ...] = ()

    def verify(self, artifact: Artifact, bundle: bytes | None) -> SignedBy:
        """Who signed this artifact, given the content of its `SIGNATURE_NAME` (None: there is no such file).

        Raises:
            UnsignedError: There is no signature.
            SignatureError: The signature is of another content or address, or of nobody who is trusted.
        """
        if bundle is None:
            raise UnsignedError(
                f"{artifact.uri} is not signed. It was published before signing began, or its "
                f"{SIGNATURE_NAME} was removed. If you know where it is from, `{_sign_command(artifact)}` "
                "checks every byte and signs it."
            )
        key_id = _key_id(artifact, bundle)
        if key_id is not None:
            signed, signer = self._by_key(artifact, bundle, key_id)
        else:
            signed, signer = self._by_identity(artifact, bundle)
        _compare(artifact, signed)
        return SignedBy(signer=signer, at=_signed_at(bundle))

    def _by_key(self, artifact: Artifact, bundle: bytes, key_id: str) -> tuple["Manifest", str]:
        key = self._trusted(artifact, key_id)
        from model_signing._signing.sign_ec_key import Verifier as KeyVerifier
        from model_signing._signing.sign_sigstore_pb import Signature

        with _explained(_altered(artifact, "its signature does not fit its content")):
            signed = KeyVerifier(key.path).verify(_read(bundle, Signature.read))
        return signed, f"key {key_id}"

    def _trusted(self, artifact: Artifact, key_id: str) -> TrustedKey:
        for key in trusted_keys(self.keys):
            if key.key_id == key_id:
                return key
        raise SignatureError(
            f"{artifact.uri} is signed with the key {key_id[:16]}…, which is not trusted here. If its owner "
            f"may sign your models, put its public key into {self.keys} as a .pub file; else delete it."
        )

    def _by_identity(self, artifact: Artifact, bundle: bytes) -> tuple["Manifest", str]:
        refused = []
        for identity in self.identities:
            try:
                with _explained(f"{identity.identity} of {identity.issuer}"):
                    return identity.verify(bundle, _read), f"{identity.identity} ({identity.issuer})"
            except SignatureError as error:
                refused.append(str(error))
        raise SignatureError(
            f"{artifact.uri} is signed through Sigstore by nobody who is trusted here "
            f"({'; '.join(refused) or 'LLM_ASSETS_TRUSTED_IDENTITIES names nobody'})."
        )


def _sign_command(artifact: Artifact) -> str:
    version = artifact.version if artifact.line.collection == "models" else "VERSION"
    return f"llm-assets sign {artifact.line.name} --tenant {artifact.line.tenant} {version}"


def _manifest(artifact: Artifact) -> "Manifest":
    """model-signing's manifest, from the digests that we have."""
    from model_signing._hashing.hashing import Digest
    from model_signing.manifest import FileManifestItem, Manifest, SerializationType

    digests = {file.path: file.sha256 for file in artifact.files}
    digests[MANIFEST_NAME] = hashlib.sha256(manifest_text(artifact).encode()).hexdigest()
    items = [
        FileManifestItem(path=Path(path), digest=Digest("sha256", bytes.fromhex(sha256)))
        for path, sha256 in digests.items()
    ]
    how = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE_NAME],
    }
    return Manifest(artifact.uri, items, SerializationType.from_args(how))


def _payload(artifact: Artifact, at: str) -> "Payload":
    from model_signing._signing.signing import Payload

    payload = Payload(_manifest(artifact))
    payload.statement.pb.predicate[SIGNED_AT] = at
    return payload


def _compare(artifact: Artifact, signed: "Manifest") -> None:
    """Raises: SignatureError: What was signed is not this artifact; names the files."""
    ours, theirs = (
        {each.identifier: each.digest.digest_hex for each in manifest.resource_descriptors()}
        for manifest in (_manifest(artifact), signed)
    )
    if ours == theirs:
        return
    if signed.model_name != artifact.uri:
        raise SignatureError(_altered(artifact, f"its signature is that of {signed.model_name}"))
    differ = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    raise SignatureError(_altered(artifact, f"signed was something else than its {', '.join(differ[:5])}"))


def _altered(artifact: Artifact, why: str) -> str:
    return (
        f"{artifact.uri} was altered after it was signed: {why}. Find out who changed it, delete that "
        "version and run again; the version before can be promoted meanwhile."
    )


def _key_id(artifact: Artifact, bundle: bytes) -> str | None:
    """Which key it claims to be signed with; None: a certificate instead, as Sigstore does."""
    try:
        material = json.loads(bundle)["verificationMaterial"]
        return str(material["publicKey"]["hint"]) if "publicKey" in material else None
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureError(
            _altered(artifact, f"its {SIGNATURE_NAME} is no signature ({error!r})")
        ) from error


def _signed_at(bundle: bytes) -> str:
    """From the signed part of a bundle that has been verified."""
    statement = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return str(statement["predicate"].get(SIGNED_AT, "at an unknown time"))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """model-signing and what it stands on raise errors of many classes; each means that it did not work."""
    try:
        yield
    except SignatureError:
        raise
    except Exception as error:
        raise SignatureError(f"{what}: {str(error) or type(error).__name__}") from error


def _written(write: Callable[[Path], None]) -> bytes:
    """model-signing writes to files and reads from files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, SIGNATURE_NAME)
        write(path)
        return path.read_bytes()


def _read(bundle: bytes, read: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, SIGNATURE_NAME)
        path.write_bytes(bundle)
        return read(path)

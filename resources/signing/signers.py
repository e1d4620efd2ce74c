"""Who signs and whose identity is trusted, by setting: model-signing's own signers behind one word.

    key                            the EC key in the key folder (the default; made when first used)
    pkcs11:token=…;object=…?module-path=…&pin-source=…
                                   a key in an HSM or a KMS with a PKCS #11 module (RFC 7512); needs PyKCS11
    sigstore                       keyless, as the workload's ambient identity (GitHub, GitLab, GCP, …)
    sigstore:<trust config>        the same through a Sigstore of one's own; the file holds no secret

A trusted identity is `<identity>=<issuer>`, such as `ci@proj.iam.gserviceaccount.com=https://accounts.google.com`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.signing.keys import SignatureError, signing_key, trust

if TYPE_CHECKING:
    from model_signing._signing.signing import Signer as ModelSigner
    from model_signing.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class SigstoreIdentity:
    """An identity that Sigstore's certificates name, and who vouches for it."""

    identity: str
    issuer: str
    trust_config: Path | None = None

    def verify(self, bundle: bytes, read: Callable[[bytes, Callable[[Path], Any]], Any]) -> "Manifest":
        from model_signing._signing.sign_sigstore import Signature, Verifier

        verifier = Verifier(identity=self.identity, oidc_issuer=self.issuer, trust_config=self.trust_config)
        return verifier.verify(read(bundle, Signature.read))


def sigstore_identities(setting: str, signer: str = "key") -> tuple[SigstoreIdentity, ...]:
    """From `LLM_ASSETS_TRUSTED_IDENTITIES`: `<identity>=<issuer>`, several separated by commas.

    Raises:
        SignatureError: A part is not of that form.
    """
    found = []
    for part in filter(None, (part.strip() for part in setting.split(","))):
        identity, separator, issuer = part.partition("=")
        if not separator or not identity or not issuer.startswith("https://"):
            raise SignatureError(
                f"LLM_ASSETS_TRUSTED_IDENTITIES holds {part!r}; <identity>=https://<issuer> is expected."
            )
        found.append(SigstoreIdentity(identity=identity, issuer=issuer, trust_config=_trust_config(signer)))
    return tuple(found)


def model_signer(setting: str, keys: Path) -> "ModelSigner":
    """model-signing's signer for a setting.

    Raises:
        SignatureError: The setting is none of the above, a library is missing, or the key cannot be reached.
    """
    kind, _, rest = setting.partition(":")
    if kind == "key" and not rest:
        from model_signing._signing.sign_ec_key import Signer

        return Signer(signing_key(keys))
    if kind == "pkcs11" and rest:
        return _pkcs11(setting, keys)
    if kind == "sigstore":
        return _sigstore(setting)
    raise SignatureError(
        f"LLM_ASSETS_SIGNER is {setting!r}; it is key, pkcs11:<address of the key>, sigstore, or "
        "sigstore:<file of a trust configuration>."
    )


def _pkcs11(setting: str, keys: Path) -> "ModelSigner":
    """Its public key is trusted as that of a key file is: what an installation signs with, it trusts."""
    try:
        from model_signing._signing.sign_pkcs11 import Signer
    except ImportError as error:
        raise SignatureError(
            "LLM_ASSETS_SIGNER names a PKCS #11 key, but PyKCS11 is not installed: "
            "`pip install 'llm-assets[pkcs11]'`."
        ) from error
    try:
        signer = Signer(setting)
        trust(keys, signer.public_key())
    except Exception as error:
        # The address may hold a PIN, so it is not repeated.
        raise SignatureError(
            "The PKCS #11 key that LLM_ASSETS_SIGNER names cannot be used: check the module, the token and "
            f"the object of its address ({type(error).__name__})."
        ) from error
    return signer


def _sigstore(setting: str) -> "ModelSigner":
    from model_signing._signing.sign_sigstore import Signer
    from sigstore.oidc import detect_credential

    if (token := detect_credential()) is None:  # else it would ask a person to log in
        raise SignatureError(
            "LLM_ASSETS_SIGNER is sigstore, but this process has no ambient identity (GitHub Actions, "
            "GitLab, Google Cloud, Buildkite, CircleCI). Run it where it has one, or sign with a key: "
            "LLM_ASSETS_SIGNER=key."
        )
    try:
        return Signer(identity_token=token, trust_config=_trust_config(setting))
    except Exception as error:
        raise SignatureError(
            f"Sigstore cannot be reached or its trust configuration is not one ({error}). Let the machine "
            "reach it, or sign with a key: LLM_ASSETS_SIGNER=key."
        ) from error


def _trust_config(setting: str) -> Path | None:
    kind, _, path = setting.partition(":")
    return Path(path) if kind == "sigstore" and path else None

"""Signatures: what they cover, what OpenSSF's own command line says of them, and whose count."""

import base64
import json
import multiprocessing
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import MANIFEST_NAME, SIGNATURE_NAME, Artifact
from resources.artifact_store.store import ArtifactStore
from resources.signing.keys import SIGNING_KEY, signing_key, trusted_keys
from resources.signing.signatures import SignatureError, Signer, UnsignedError, Verifier
from resources.signing.signers import sigstore_identities
from tests.stored import folder_of
from tests.unit.signing.conftest import publish


def standard_check(folder: Path, keys: Path) -> subprocess.CompletedProcess[str]:
    """What anybody runs who has OpenSSF model-signing and the public key, and not this platform."""
    (key,) = trusted_keys(keys)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    options = ["--signature", str(folder / SIGNATURE_NAME), "--public_key", str(key.path)]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# What a signature covers


def test_a_signed_artifact_says_who_signed_it_and_when(
    artifact: Artifact, signer: Signer, verifier: Verifier, keys: Path
) -> None:
    signed = verifier.verify(artifact, signer.sign(artifact))
    assert signed.signer == f"key {trusted_keys(keys)[0].key_id}"
    assert signed.at.startswith("20")
    assert signed.at.endswith("Z")


def test_a_signature_still_holds_for_the_artifact_that_is_read_back(
    store: ArtifactStore, artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    verifier.verify(store.get(artifact.uri), signer.sign(artifact))


def test_attributes_that_json_changes_are_signed_as_they_are_read_back(
    store: ArtifactStore, signer: Signer, verifier: Verifier, tmp_path: Path
) -> None:
    artifact = publish(store, tmp_path, rows_by_length={2: 1, 10: 1}, shape=(1, 2))
    verifier.verify(store.get(artifact.uri), signer.sign(artifact))


def test_no_file_is_read_to_sign(store: ArtifactStore, artifact: Artifact, signer: Signer) -> None:
    shutil.rmtree(folder_of(store, artifact))
    assert signer.sign(artifact)


def test_openssf_own_command_line_accepts_the_folder(
    store: ArtifactStore, artifact: Artifact, signer: Signer, keys: Path
) -> None:
    (folder_of(store, artifact) / SIGNATURE_NAME).write_bytes(signer.sign(artifact))
    checked = standard_check(folder_of(store, artifact), keys)
    assert (checked.returncode, checked.stdout.strip()) == (0, "Verification succeeded"), checked.stderr


def test_openssf_own_command_line_names_every_file_that_was_altered_or_added(
    store: ArtifactStore, artifact: Artifact, signer: Signer, keys: Path
) -> None:
    (folder_of(store, artifact) / SIGNATURE_NAME).write_bytes(signer.sign(artifact))
    for file in ("model.safetensors", "tokenizer/vocab.json", MANIFEST_NAME):
        flip_one_bit(folder_of(store, artifact) / file)
    (folder_of(store, artifact) / "evil.py").write_text("import os")
    checked = standard_check(folder_of(store, artifact), keys)
    assert checked.returncode == 1
    assert re.findall(r"Hash mismatch for \W+([\w./]+)", checked.stderr) == [
        MANIFEST_NAME,
        "model.safetensors",
        "tokenizer/vocab.json",
    ]
    assert "evil.py" in checked.stderr


# Altered


def test_another_digest_of_a_file_is_refused_and_the_file_named(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    bundle = signer.sign(artifact)
    weights = next(file for file in artifact.files if file.path == "model.safetensors")
    altered = tuple(replace(file, sha256="0" * 64) if file is weights else file for file in artifact.files)
    with pytest.raises(SignatureError, match=r"altered after it was signed.*model\.safetensors"):
        verifier.verify(replace(artifact, files=altered), bundle)


def test_another_attribute_is_refused(artifact: Artifact, signer: Signer, verifier: Verifier) -> None:
    altered = replace(artifact, attributes={"recipe": {"lora_rank": 9}})
    with pytest.raises(SignatureError, match=r"support_bot/.* was altered .* its manifest\.json\."):
        verifier.verify(altered, signer.sign(artifact))


def test_a_signed_version_of_one_tenant_does_not_pass_as_anothers(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    stolen = replace(artifact, line=replace(artifact.line, tenant="team-b"))
    with pytest.raises(
        SignatureError, match=r"models/team-b/.*its signature is that of artifact://models/team-a/"
    ):
        verifier.verify(stolen, signer.sign(artifact))


def test_a_signature_of_another_version_is_refused(
    store: ArtifactStore, artifact: Artifact, signer: Signer, verifier: Verifier, tmp_path: Path
) -> None:
    other = publish(store, tmp_path, fingerprint="other")
    with pytest.raises(SignatureError, match="its signature is that of"):
        verifier.verify(artifact, signer.sign(other))


def test_a_payload_that_was_changed_after_it_was_signed_is_refused(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    bundle = json.loads(signer.sign(artifact))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"team-a", b"team-b")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureError, match="its signature does not fit its content"):
        verifier.verify(artifact, json.dumps(bundle).encode())


@pytest.mark.parametrize(
    "rubbish", [b"", b"\xff\xfe", b"[]", b"{}", b'{"verificationMaterial": {"publicKey": 1}}']
)
def test_what_is_no_signature_counts_as_altered(
    artifact: Artifact, verifier: Verifier, rubbish: bytes
) -> None:
    with pytest.raises(SignatureError, match=f"altered.*{SIGNATURE_NAME} is no signature") as refused:
        verifier.verify(artifact, rubbish)
    assert not isinstance(refused.value, UnsignedError)


def test_an_unsigned_artifact_is_named_with_the_command_that_signs_it(
    artifact: Artifact, verifier: Verifier
) -> None:
    with pytest.raises(
        UnsignedError, match=rf"llm-assets sign support_bot --tenant team-a {artifact.version}"
    ):
        verifier.verify(artifact, None)


# Keys


def test_the_private_key_is_its_owners_alone(keys: Path) -> None:
    path = signing_key(keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert sorted(each.name for each in keys.iterdir()) == sorted(
        [SIGNING_KEY, f"{trusted_keys(keys)[0].key_id}.pub"]
    )


def _first_use(keys: Path) -> bytes:
    return signing_key(keys).read_bytes()


def test_processes_that_need_a_key_first_at_the_same_moment_share_one(keys: Path) -> None:
    pool = multiprocessing.get_context("fork").Pool(8)
    used = pool.map(_first_use, [keys] * 16, chunksize=1)
    pool.close()  # a `with` would end them by a signal, for which other tests may have left a handler
    pool.join()
    assert len(set(used)) == 1
    assert len(trusted_keys(keys)) == 1


def test_after_a_new_key_what_the_old_one_signed_is_still_trusted_until_it_is_taken_out(
    artifact: Artifact, signer: Signer, verifier: Verifier, keys: Path
) -> None:
    old = signer.sign(artifact)
    (old_key,) = trusted_keys(keys)
    (keys / SIGNING_KEY).unlink()
    new = signer.sign(artifact)
    assert verifier.verify(artifact, old).signer != verifier.verify(artifact, new).signer
    old_key.path.unlink()
    verifier.verify(artifact, new)
    with pytest.raises(
        SignatureError, match=rf"key {old_key.key_id[:16]}…, which is not trusted here.*{keys}"
    ):
        verifier.verify(artifact, old)


def test_a_stranger_who_claims_a_trusted_key_is_refused(
    artifact: Artifact, signer: Signer, verifier: Verifier, tmp_path: Path
) -> None:
    trusted = json.loads(signer.sign(artifact))["verificationMaterial"]
    forged = json.loads(Signer(keys=tmp_path / "stranger").sign(artifact))
    forged["verificationMaterial"] = trusted
    with pytest.raises(SignatureError, match="its signature does not fit its content"):
        verifier.verify(artifact, json.dumps(forged).encode())


def test_a_public_key_file_that_is_none_is_named(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    bundle = signer.sign(artifact)
    (verifier.keys / "0.pub").write_text("not a key")
    with pytest.raises(SignatureError, match=r"0\.pub holds no public key in PEM form"):
        verifier.verify(artifact, bundle)


# Other signers


def test_a_signer_that_does_not_exist_is_named_with_those_that_do(artifact: Artifact, keys: Path) -> None:
    with pytest.raises(SignatureError, match=r"LLM_ASSETS_SIGNER is 'pgp'; it is key, pkcs11:.*sigstore"):
        Signer(keys=keys, setting="pgp").sign(artifact)


def test_a_pkcs11_key_that_cannot_be_reached_is_an_error_that_never_says_the_pin(
    artifact: Artifact, keys: Path
) -> None:
    setting = "pkcs11:token=models;object=signing?pin-value=1234"
    with pytest.raises(
        SignatureError, match="PKCS #11 key that LLM_ASSETS_SIGNER names cannot be used"
    ) as refused:
        Signer(keys=keys, setting=setting).sign(artifact)
    assert "1234" not in str(refused.value)


def test_sigstore_without_an_identity_is_refused_and_asks_nobody_to_log_in(
    artifact: Artifact, keys: Path
) -> None:
    with pytest.raises(SignatureError, match="no ambient identity"):
        Signer(keys=keys, setting="sigstore").sign(artifact)


def test_a_sigstore_signature_counts_only_from_those_who_are_named(
    artifact: Artifact, signer: Signer, verifier: Verifier
) -> None:
    bundle = json.loads(signer.sign(artifact))
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": ""}, "tlogEntries": []}
    with pytest.raises(SignatureError, match=r"nobody who is trusted here.*LLM_ASSETS_TRUSTED_IDENTITIES"):
        verifier.verify(artifact, json.dumps(bundle).encode())


def test_trusted_identities_are_read_from_one_setting() -> None:
    named = "ci@example.com=https://accounts.google.com, repo:x/y=https://token.actions.githubusercontent.com"
    assert [each.identity for each in sigstore_identities(named)] == ["ci@example.com", "repo:x/y"]
    with pytest.raises(SignatureError, match="LLM_ASSETS_TRUSTED_IDENTITIES holds 'ann'"):
        sigstore_identities("ann")


# Cost


def test_nothing_of_model_signing_is_loaded_until_something_is_signed() -> None:
    code = (
        "import sys, llm_assets.signature_policy, llm_assets.promotion_rules;"
        "print([name for name in ('model_signing', 'sigstore', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

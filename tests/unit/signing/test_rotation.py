"""Keys that come after one another: the next one is known before it signs; nothing is refused meanwhile."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact
from resources.audit.statements import Signing
from resources.signing.keys import NEXT_KEY, SIGNING_KEY, prepare, role_of, rotate, signing_key, trusted_keys
from resources.signing.signatures import SignatureError, Signer, Verifier

THREADS, ROTATIONS, SETTLE_S = 4, 12, 0.05


def test_a_prepared_key_is_trusted_and_signs_nothing_until_it_is_rotated(
    artifact: Artifact, signer: Signer, verifier: Verifier, keys: Path
) -> None:
    first = verifier.verify(artifact, signer.sign(artifact)).signer
    coming = prepare(keys)
    assert prepare(keys) == coming, "asked again, it is the same one"
    assert (keys / NEXT_KEY).stat().st_mode & 0o077 == 0
    assert verifier.verify(artifact, signer.sign(artifact)).signer == first
    assert {role_of(keys, key.key_id) for key in trusted_keys(keys)} == {"signs", "next"}
    old, new = rotate(keys, settle_s=0)
    assert (f"key {old}", new) == (first, coming)
    assert verifier.verify(artifact, signer.sign(artifact)).signer == f"key {coming}"
    assert {role_of(keys, key.key_id) for key in trusted_keys(keys)} == {"signs", "trusted"}


def test_what_was_signed_before_and_after_is_good_wherever_the_next_key_was_told_in_time(
    artifact: Artifact, signer: Signer, keys: Path, tmp_path: Path
) -> None:
    before = signer.sign(artifact)
    prepare(keys)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for key in trusted_keys(keys):
        shutil.copy(key.path, elsewhere)
    rotate(keys, settle_s=0)
    after = signer.sign(artifact)
    for bundle in (before, after):
        assert Verifier(keys=elsewhere).verify(artifact, bundle)


def test_the_old_private_key_is_destroyed(keys: Path) -> None:
    path = signing_key(keys)
    kept = keys.parent / "a-link-to-it"
    kept.hardlink_to(path)
    prepare(keys)
    rotate(keys, settle_s=0)
    assert kept.read_bytes().strip(b"\0") == b"", "wherever its bytes lay"
    assert not (keys / NEXT_KEY).exists()
    assert [path.name for path in keys.iterdir() if path.suffix != ".pub"] == [SIGNING_KEY]


def test_without_a_prepared_key_nothing_is_rotated(keys: Path) -> None:
    signing_key(keys)
    before = (keys / SIGNING_KEY).read_bytes()
    with pytest.raises(SignatureError, match=r"No key was prepared .*signing-key prepare"):
        rotate(keys, settle_s=0)
    assert (keys / SIGNING_KEY).read_bytes() == before


def test_everything_that_is_signed_while_keys_are_rotated_verifies(keys: Path) -> None:
    signed: list[bytes] = []
    ended = threading.Event()

    def sign() -> None:
        signing = Signing(keys)
        while not ended.is_set():
            signed.append(signing.signed({"kind": "test", "number": len(signed)}))

    with ThreadPoolExecutor(THREADS) as threads:
        signers = [threads.submit(sign) for _ in range(THREADS)]
        try:
            for _ in range(ROTATIONS):
                prepare(keys)
                rotate(keys, settle_s=SETTLE_S)
        finally:
            ended.set()
    for each in signers:
        each.result()
    assert len({json.loads(content)["key"] for content in signed}) > ROTATIONS // 2, "keys changed meanwhile"
    for content in signed[:: len(signed) // 500 + 1]:
        Signing(keys).verified(content, "it")

"""A key in a hardware module, here SoftHSM: `apt-get install softhsm2`, `pip install pykcs11`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import Artifact
from resources.signing.keys import SIGNING_KEY
from resources.signing.signatures import SignatureError, Signer, Verifier

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
P_256 = bytes.fromhex("06082a8648ce3d030107")  # the curve's object identifier in DER
PIN = "1234"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new key in a new token."""
    import PyKCS11

    assert shutil.which("softhsm2-util") is not None, "SoftHSM is missing: apt-get install softhsm2"
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    new_token = ["softhsm2-util", "--init-token", "--free", "--label", "models"]
    new_token += ["--pin", PIN, "--so-pin", "5678"]
    subprocess.run(new_token, check=True)
    library = PyKCS11.PyKCS11Lib()
    library.load(str(MODULE))
    session = library.openSession(library.getSlotList(tokenPresent=True)[0], PyKCS11.CKF_RW_SESSION)
    session.login(PIN)
    both = [(PyKCS11.CKA_TOKEN, True), (PyKCS11.CKA_LABEL, "signing"), (PyKCS11.CKA_ID, (1,))]
    public = [*both, (PyKCS11.CKA_CLASS, PyKCS11.CKO_PUBLIC_KEY), (PyKCS11.CKA_EC_PARAMS, P_256)]
    private = [*both, (PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY), (PyKCS11.CKA_SIGN, True)]
    session.generateKeyPair(public, private, mecha=PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN, None))
    session.logout()
    session.closeSession()
    return f"pkcs11:token=models;object=signing?module-path={MODULE}&pin-value={PIN}"


def test_a_key_that_never_leaves_its_module_signs_and_is_trusted(
    hsm: str, artifact: Artifact, keys: Path, verifier: Verifier
) -> None:
    signed = verifier.verify(artifact, Signer(keys=keys, setting=hsm).sign(artifact))
    assert [f"key {path.stem}" for path in keys.iterdir()] == [signed.signer]
    assert not (keys / SIGNING_KEY).exists()


def test_a_wrong_pin_is_refused_and_not_repeated(hsm: str, artifact: Artifact, keys: Path) -> None:
    with pytest.raises(SignatureError, match=r"PKCS #11 key .* cannot be used") as refused:
        Signer(keys=keys, setting=hsm.replace(PIN, "987654")).sign(artifact)
    assert "987654" not in str(refused.value)

"""The published model and the keys of the unit tests."""

from tests.unit.signing.conftest import artifact, keys, signer, store, verifier

__all__ = ["artifact", "keys", "signer", "store", "verifier"]

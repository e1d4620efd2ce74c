"""Creating an object only where there is none, in a store without conditional writes.

A writer first puts a claim beside the key and lists the claims. It writes only while its claim is the only
one: of two writers, the one whose claim came second sees the first one's claim, or the finished object. Of
several, the smallest name stays and the others withdraw, so one of them gets through.

What this rests on, and S3 or Google Cloud Storage do not need: a listing shows every finished write (so it
does in Artifactory, whose nodes share one database), and no writer stops for longer than `CLAIM_S` between
its listing and its write and then goes on. For that case the object is read back, and a writer that finds
another's bytes has lost.
"""

import random
import time
import uuid
from datetime import datetime
from typing import Protocol

from resources.object_stores.objects import UNFINISHED, ObjectStoreError
from resources.object_stores.retries import Retries

CLAIM_S = 120.0
"""A claim that is so much older than ours, by the store's clock, belongs to a writer that was killed."""


class Claimable(Protocol):
    """What of a store a claim needs."""

    @property
    def url(self) -> str: ...
    def exists(self, key: str) -> bool: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, content: bytes) -> None: ...
    def withdraw(self, key: str) -> None: ...
    def claims(self, folder: str) -> dict[str, str]: ...


def create_with_claim(store: Claimable, key: str, content: bytes, *, retries: Retries) -> bool:
    """Whether this writer, and no other, wrote `key`."""
    parent, slash, name = key.rpartition("/")
    folder = f"{parent}{slash}{UNFINISHED}claims/{name}"
    claim = f"{folder}/{uuid.uuid4().hex}"
    give_up = time.monotonic() + CLAIM_S + retries.give_up_s
    try:
        while not store.exists(key):
            if _alone(store, folder, claim):
                return _write_alone(store, key, content)
            if time.monotonic() > give_up:
                raise ObjectStoreError(
                    f"The object store {store.url} could not create {key!r}: other writers claim it "
                    f"below {folder}. Look whether they still run, delete those claims if not, and run again."
                )
            time.sleep(random.uniform(0.5, 1.0) * min(0.2, retries.first_pause_s))  # noqa: S311 (jitter)
        return False
    finally:
        store.withdraw(claim)


def _alone(store: Claimable, folder: str, claim: str) -> bool:
    """Claims, and withdraws again where a smaller claim stands."""
    store.write(claim, b"claimed")
    claims = store.claims(folder)
    if claim not in claims:  # the listing is behind, so it proves nothing
        return False
    ours = datetime.fromisoformat(claims[claim])
    others = [
        other
        for other, at in claims.items()
        if other != claim and (ours - datetime.fromisoformat(at)).total_seconds() < CLAIM_S
    ]
    if others and min(others) < claim:
        store.withdraw(claim)
    return not others


def _write_alone(store: Claimable, key: str, content: bytes) -> bool:
    if store.exists(key):  # written between our first look and our claim
        return False
    store.write(key, content)
    return store.read(key) == content

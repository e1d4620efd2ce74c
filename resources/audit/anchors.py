"""The heads of chains in an object store: what a log that is put back or taken away as a whole is missed by.

    audit/_heads/<tenant>/<first seq of its segment>/<seq>-<hash>.json      the signed head, as it was then

Every head is an object of its own that is created and never written again, so an older log cannot replace
what the newer one had left there. Its name says number and hash: a chain is compared by a listing. Who may
delete from the store can still take the newest away; where the store locks its objects (retention of the
bucket, S3 Object Lock), nobody can before its time.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from resources.audit.places import PLATFORM, AuditError
from resources.audit.statements import Signing, stated_in
from resources.names import TENANT
from resources.object_stores.objects import ObjectStore

AUDIT, HEADS = "audit", "audit/_heads"
DIGITS = 12
NAME = re.compile(r"(\d{12,})-([0-9a-f]{64})\.json")


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One head in the store, as its name says; `proven` reads it."""

    objects: ObjectStore
    tenant: str
    key: str
    seq: int
    hash: str

    def proven(self, signing: Signing) -> bytes:
        """Its content.

        Raises:
            AuditError: It is no head of this chain signed by somebody who is trusted here, or another one
                than its name says.
            ObjectStoreError: The store does not answer.
        """
        content = self.objects.read(self.key)
        head = signing.verified(content, "it")
        said = {name: head.get(name) for name in ("kind", "tenant", "seq", "hash")}
        if said != {"kind": "head", "tenant": self.tenant, "seq": self.seq, "hash": self.hash}:
            raise AuditError("it is a signed statement of something else than its name says")
        return content


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """The heads in one store."""

    objects: ObjectStore

    def tenants(self) -> list[str]:
        """Whose chains the store knows: by heads, or by segments that a head was lost of."""
        names = {*self.objects.folders(f"{AUDIT}/"), *self.objects.folders(f"{HEADS}/")}
        return sorted(name for name in names if name == PLATFORM or TENANT.fullmatch(name))

    def of(self, tenant: str) -> Iterator[Anchor]:
        """All of a chain, in its order; a listing alone."""
        found = []
        for stored in self.objects.list(f"{HEADS}/{tenant}/"):
            if name := NAME.fullmatch(stored.key.rpartition("/")[2]):
                found.append(self._anchor(tenant, stored.key, int(name[1]), name[2]))
        yield from sorted(found, key=lambda anchor: anchor.seq)

    def newest(self, tenant: str, signing: Signing) -> tuple[int, bytes] | None:
        """The number and content of the newest head that is proven; looks only where it lies."""
        for folder in reversed(self.objects.folders(f"{HEADS}/{tenant}/")):
            for stored in reversed(list(self.objects.list(f"{HEADS}/{tenant}/{folder}/"))):
                name = NAME.fullmatch(stored.key.rpartition("/")[2])
                if name is None:
                    continue
                anchor = self._anchor(tenant, stored.key, int(name[1]), name[2])
                try:
                    return anchor.seq, anchor.proven(signing)
                except AuditError:
                    continue  # `audit verify` names it
        return None

    def bring(self, tenant: str, head: bytes) -> None:
        """Puts a head there, unless it is there already."""
        stated = stated_in(head)
        seq, digest = int(stated["seq"]), str(stated["hash"])
        folder = f"{HEADS}/{tenant}/{int(stated['segment']):0{DIGITS}d}"
        key = f"{folder}/{seq:0{DIGITS}d}-{digest}.json"
        self.objects.create(key, head)

    def withdraw(self, tenant: str, first: int) -> None:
        """Deletes the heads of a segment that was deleted because it was due."""
        for stored in list(self.objects.list(f"{HEADS}/{tenant}/{first:0{DIGITS}d}/")):
            self.objects.delete(stored.key)

    def _anchor(self, tenant: str, key: str, seq: int, digest: str) -> Anchor:
        return Anchor(objects=self.objects, tenant=tenant, key=key, seq=seq, hash=digest)

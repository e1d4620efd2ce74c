"""A folder (or zip) that somebody can check without this platform: records, signatures, public keys, how to
verify.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from resources.audit import outside_verifier
from resources.audit.chain import iso
from resources.audit.outside_verifier import MANIFEST, OPENED, digests_in
from resources.audit.places import AuditError, AuditPlaces
from resources.audit.segments import HEAD, SEAL, segments_in
from resources.audit.statements import Signing
from resources.signing.keys import public_text, trusted_keys

README = """# Audit log of {tenant}

Exported {at} by {by}. Personal fields are encrypted; what the key of their subject opened is in
`opened.jsonl`, if that was asked for.

- `log/<first sequence number>.jsonl`: one record a line. The last field, `hash`, is the SHA-256 of the line
  without that field (`{{…}}`); `previous` is the `hash` of the line before, `seq` counts without a gap.
- `log/*.seal.json`, `log/head.json`, `log/*.deleted.json`: signed statements (ECDSA over SHA-256 of the text
  in `statement`) on closed segments, the newest record, and segments that were deleted when they were due.
- `keys/<key id>.pub`: the public keys; a key id is the SHA-256 of the PEM text. Ask the owner of the
  installation for the ids that are theirs.
- `manifest.json`: a signed statement with the SHA-256 of every file here, and where the log ended.

To verify everything: `python3 verify.py --key <key id>` (standard library and the `openssl` command). Without
`--key` every key in `keys/` counts, also one that somebody put there. Who could change these files could
change `verify.py` as well: take it from another export, or from the platform's source
(`resources/audit/outside_verifier.py`). One signature by hand:

    python3 -c "import base64,json; f=json.load(open('log/head.json'));
    open('s.txt','w').write(f['statement']); \\
      open('s.sig','wb').write(base64.b64decode(f['signature'])); print(f['key'])"
    openssl dgst -sha256 -verify keys/<key id>.pub -signature s.sig s.txt
"""


def export(
    places: AuditPlaces,
    tenant: str,
    signing: Signing,
    to: Path,
    *,
    by: str,
    opened: Iterable[dict[str, object]] = (),
) -> None:
    """Writes the whole log of a tenant to `to`, a new folder or a new `.zip`.

    Args:
        signing: Signs the list of files; its trusted keys go along.
        opened: Records with their personal parts readable, to be added.

    Raises:
        AuditError: There is something at `to` already, or no log of that tenant.
    """
    if to.exists():
        raise AuditError(f"{to} exists already; an export goes to a new folder or file.")
    if not places.log(tenant).is_dir():
        raise AuditError(f"There is no audit log of {tenant} in {places.folder}.")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".export-") as scratch:
        folder = Path(scratch, "export")
        _copy_log(folder, places, tenant)
        _add_opened(folder, opened)
        _add_keys_and_words(folder, signing, tenant, by)
        _add_manifest(folder, signing, tenant, by)
        if to.suffix == ".zip":
            packed = shutil.make_archive(str(Path(scratch, "packed")), "zip", folder)
            Path(packed).rename(to)
        else:
            folder.rename(to)


def _copy_log(folder: Path, places: AuditPlaces, tenant: str) -> None:
    (folder / "log").mkdir(parents=True, mode=0o700)
    for segment in segments_in(places.log(tenant), SEAL):  # they change no more, so nobody has to wait
        if segment.path.exists():
            shutil.copyfile(segment.path, folder / "log" / segment.path.name)
    with places.lock(tenant):  # head and open segment of one moment
        if not (places.log(tenant) / HEAD).exists():
            raise AuditError(f"The log of {tenant} has no signed head; `llm-assets audit verify` says more.")
        for path in places.log(tenant).glob("[!.]*"):
            if not (folder / "log" / path.name).exists():
                shutil.copyfile(path, folder / "log" / path.name)


def _add_opened(folder: Path, opened: Iterable[dict[str, object]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in opened]
    if lines:
        (folder / OPENED).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _add_keys_and_words(folder: Path, signing: Signing, tenant: str, by: str) -> None:
    signing.own_key_id()  # there is one from here on
    (folder / "keys").mkdir()
    for key in trusted_keys(signing.keys):
        (folder / "keys" / f"{key.key_id}.pub").write_bytes(public_text(key.path))
    shutil.copyfile(outside_verifier.__file__, folder / "verify.py")
    (folder / "README.md").write_text(README.format(tenant=tenant, at=iso(time.time()), by=by))


def _add_manifest(folder: Path, signing: Signing, tenant: str, by: str) -> None:
    head = signing.verified((folder / "log" / HEAD).read_bytes(), f"The head of {tenant}'s log")
    stated: dict[str, object] = {"kind": "export", "tenant": tenant, "at": iso(time.time()), "by": by}
    stated |= {"seq": head["seq"], "hash": head["hash"], "files": digests_in(folder)}
    (folder / MANIFEST).write_bytes(signing.signed(stated))

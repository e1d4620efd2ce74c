"""Everything that somebody may do to a log, or to an export of one, who has not the signing key.

Each takes the folder of a log: `log/<tenant>`, or `log` of an export. Its parts have the same names in both.
"""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from resources.audit.outside_verifier import HEAD, MANIFEST, OPENED
from resources.audit.segments import GENESIS, hash_in, line_of, record_in
from resources.audit.statements import Signing

EARLIER, OTHER_TENANT, FOREIGN_KEYS = "earlier", "other-tenant", "foreign-keys"
"""Folders beside the log: the log as it was some batches before, another tenant's log, and keys of nobody."""


class Log(NamedTuple):
    """The folder that is tampered with, and what a tamperer has beside it."""

    folder: Path
    beside: Path

    def parts(self, suffix: str) -> list[Path]:
        return sorted(self.folder.glob(f"*{suffix}"))

    @property
    def segments(self) -> list[Path]:
        return self.parts(".jsonl")

    @property
    def seals(self) -> list[Path]:
        return self.parts(".seal.json")

    @property
    def open(self) -> Path:
        return self.segments[-1]

    @property
    def closed(self) -> Path:
        return self.segments[1]

    @property
    def earlier(self) -> Path:
        return self.beside / EARLIER

    @property
    def other_tenant(self) -> Path:
        return self.beside / OTHER_TENANT

    def change(self, path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


Tamper = Callable[[Log], object]


def edited(line: bytes) -> bytes:
    return line.replace(b'"status":200', b'"status":403')


def forged(line: bytes, previous: str, **changed: object) -> bytes:
    """The record with other content, well-formed and well-chained."""
    record = record_in(line)
    for name in ("hash", "batch"):
        record.pop(name, None)
    return line_of({**record, "previous": previous, **changed})[0]


def chained_anew(log: Log) -> None:
    previous = record_in(log.segments[0].read_bytes().splitlines()[0])["previous"]
    for path in log.segments:
        lines = []
        for line in path.read_bytes().splitlines():
            lines.append(forged(line, previous, outcome="error"))
            previous = hash_in(lines[-1])
        path.write_bytes(b"".join(lines))


def append(log: Log, count: int, *, batch: bool = False) -> None:
    lines = log.open.read_bytes().splitlines(keepends=True)
    last, signature = lines[-1], record_in(lines[-1])["batch"]
    for _ in range(count):
        record = {**record_in(last), "id": "forged"}
        for name in ("hash", "batch"):
            record.pop(name, None)
        record |= {"seq": record["seq"] + 1, "previous": hash_in(last)}
        last, _ = line_of(record, (lambda _: signature) if batch else None)
        lines.append(last)
    log.open.write_bytes(b"".join(lines))


def sign_anew(log: Log, path: Path) -> None:
    """By a key that is not trusted."""
    stated = json.loads(json.loads(path.read_bytes())["statement"])
    path.write_bytes(Signing(log.beside / FOREIGN_KEYS).signed(stated))


def altered(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content, path
    path.write_bytes(content.replace(old, new, 1))


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def renamed_to_deleted(log: Log, segments: list[Path]) -> None:
    for path in segments:
        path.unlink()
        path.with_suffix(".seal.json").rename(path.with_suffix(".deleted.json"))


def merged(log: Log) -> None:
    log.closed.write_bytes(log.closed.read_bytes() + log.segments[2].read_bytes())
    remove(log.segments[2])


def split(log: Log) -> None:
    lines = log.open.read_bytes().splitlines(keepends=True)
    second = record_in(lines[1])["seq"]
    log.open.write_bytes(lines[0])
    log.open.with_name(f"{second:012d}.jsonl").write_bytes(b"".join(lines[1:]))


def copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def proof_of_another(log: Log) -> None:
    """A genuine proof of deletion, of an earlier segment, in place of a segment that nobody had to delete."""
    proof, path = log.parts(".deleted.json")[0], log.closed
    remove(path, path.with_suffix(".seal.json"))
    copied(proof, path.with_suffix(".deleted.json"))


def seal_field(log: Log) -> None:
    file = json.loads(log.seals[0].read_bytes())
    stated = json.loads(file["statement"])
    file["statement"] = json.dumps({**stated, "risk_classes": []})
    log.seals[0].write_text(json.dumps(file))


def signature_cut(log: Log) -> None:
    file = json.loads((log.folder / HEAD).read_bytes())
    file["signature"] = base64.b64encode(base64.b64decode(file["signature"])[:-1]).decode()
    (log.folder / HEAD).write_text(json.dumps(file))


def becomes_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def becomes_link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def older_log(log: Log) -> None:
    shutil.rmtree(log.folder)
    shutil.copytree(log.earlier, log.folder)


TABLE: dict[str, Tamper] = {
    "a record is edited": lambda log: log.change(log.closed, lambda lines: [edited(lines[0]), *lines[1:]]),
    "a record of the open segment is edited": lambda log: log.change(
        log.open, lambda lines: [edited(lines[0]), *lines[1:]]
    ),
    "the last record is edited": lambda log: log.change(
        log.open, lambda lines: [*lines[:-1], edited(lines[-1])]
    ),
    "all is edited and chained anew": chained_anew,
    "the last record is exchanged, well-chained": lambda log: log.change(
        log.open, lambda lines: [*lines[:-1], forged(lines[-1], hash_in(lines[-2]), outcome="error")]
    ),
    "the first record of a segment is dropped": lambda log: log.change(log.closed, lambda lines: lines[1:]),
    "the last record of a segment is dropped": lambda log: log.change(log.closed, lambda lines: lines[:-1]),
    "a record of the open segment is dropped": lambda log: log.change(log.open, lambda lines: lines[1:]),
    "the last record is dropped": lambda log: log.change(log.open, lambda lines: lines[:-1]),
    "the last record is cut within": lambda log: log.open.write_bytes(log.open.read_bytes()[:-20]),
    "the last line loses its end": lambda log: log.open.write_bytes(log.open.read_bytes()[:-1]),
    "two records change places": lambda log: log.change(log.closed, lambda lines: lines[::-1]),
    "a record is doubled": lambda log: log.change(log.closed, lambda lines: [lines[0], *lines]),
    "a record is added": lambda log: append(log, 1),
    "records are added": lambda log: append(log, 3),
    "a record is added with the signature of another batch": lambda log: append(log, 1, batch=True),
    "the last record is there twice": lambda log: log.change(log.open, lambda lines: [*lines, lines[-1]]),
    "no record is added": lambda log: log.change(log.open, lambda lines: [*lines, b"{}\n"]),
    "an empty line is added to a closed segment": lambda log: log.change(
        log.closed, lambda lines: [*lines, b"\n"]
    ),
    "an empty line is added to the open segment": lambda log: log.change(
        log.open, lambda lines: [*lines, b"\n"]
    ),
    "a segment is removed": lambda log: remove(log.closed),
    "a segment is removed with its seal": lambda log: remove(
        log.closed, log.closed.with_suffix(".seal.json")
    ),
    "the first segment is removed with its seal": lambda log: remove(
        log.segments[0], log.segments[0].with_suffix(".seal.json")
    ),
    "the open segment is removed": lambda log: remove(log.open),
    "the open segment is emptied": lambda log: log.open.write_bytes(b""),
    "the open segment is removed with the head": lambda log: remove(log.open, log.folder / HEAD),
    "segments are removed and their seals renamed to proofs": lambda log: renamed_to_deleted(
        log, log.segments[:2]
    ),
    "all closed segments are removed and their seals renamed to proofs": lambda log: renamed_to_deleted(
        log, log.segments[:-1]
    ),
    "a seal is removed": lambda log: remove(log.seals[0]),
    "all seals are removed": lambda log: remove(*log.seals),
    "two seals change places": lambda log: swap(log.seals[0], log.seals[1]),
    "a seal is emptied": lambda log: log.seals[0].write_bytes(b""),
    "a seal states something else": seal_field,
    "a seal is no statement": lambda log: log.seals[0].write_bytes(b"[]"),
    "a seal is signed with another key": lambda log: sign_anew(log, log.seals[0]),
    "a seal takes the place of the head": lambda log: copied(log.seals[-1], log.folder / HEAD),
    "the head takes the place of a seal": lambda log: copied(log.folder / HEAD, log.seals[0]),
    "the head is removed": lambda log: remove(log.folder / HEAD),
    "the head states something else": lambda log: altered(log.folder / HEAD, b'\\"seq\\":', b'\\"seq\\":1'),
    "the head's signature is cut": signature_cut,
    "the head is signed with another key": lambda log: sign_anew(log, log.folder / HEAD),
    "everything is signed with another key": lambda log: [
        sign_anew(log, path) for path in [*log.seals, *log.parts(".deleted.json"), log.folder / HEAD]
    ],
    "an older head is put back": lambda log: copied(log.earlier / HEAD, log.folder / HEAD),
    "the head of another tenant is put there": lambda log: copied(log.other_tenant / HEAD, log.folder / HEAD),
    "the log of another tenant is put there": lambda log: (
        shutil.rmtree(log.folder),
        shutil.copytree(log.other_tenant, log.folder),
    ),
    "the open segment as it was is put back": lambda log: copied(log.earlier / log.open.name, log.open),
    "a proof of deletion is removed": lambda log: remove(log.parts(".deleted.json")[0]),
    "all proofs of deletion are removed": lambda log: remove(*log.parts(".deleted.json")),
    "a proof of deletion is altered": lambda log: altered(
        log.parts(".deleted.json")[0], b"retention_days", b"retention_dayz"
    ),
    "a proof of deletion is copied to another segment": proof_of_another,
    "two segments become one": merged,
    "a segment becomes two": split,
    "a segment gets another number": lambda log: log.closed.rename(
        log.closed.with_name("000000009999.jsonl")
    ),
    "a segment gets a short name": lambda log: log.closed.rename(log.closed.with_name("6.jsonl")),
    "a segment is there twice": lambda log: copied(log.closed, log.open.with_name("000000009999.jsonl")),
    "a segment becomes a folder": lambda log: becomes_folder(log.closed),
    "a segment becomes a link to another": lambda log: becomes_link(log.closed, log.segments[0]),
    "a segment becomes a link to itself elsewhere": lambda log: becomes_link(
        log.closed, log.closed.rename(log.folder.parent / "aside")
    ),
    "a segment becomes a link to nowhere": lambda log: becomes_link(log.closed, Path("nowhere")),
    "the head becomes a link to nowhere": lambda log: becomes_link(log.folder / HEAD, Path("nowhere")),
    "a seal becomes a folder": lambda log: becomes_folder(log.seals[0]),
    "a file is added": lambda log: (log.folder / "notes.txt").write_text("nothing happened"),
    "everything is emptied": lambda log: [path.write_bytes(b"") for path in log.folder.iterdir()],
    "everything is removed": lambda log: [path.unlink() for path in log.folder.iterdir()],
    "the chain begins anew, unsigned": lambda log: (
        [path.unlink() for path in log.folder.iterdir()],
        (log.folder / "000000000001.jsonl").write_bytes(
            line_of({"id": "forged", "seq": 1, "previous": GENESIS, "tenant": "team-a"})[0]
        ),
    ),
}
"""Found by the log itself, wherever it lies."""

AS_A_WHOLE: dict[str, Tamper] = {
    "an older log is put back with its head": older_log,
    "the log is gone": lambda log: shutil.rmtree(log.folder),
}
"""Found by what lies elsewhere: the heads in the store, the manifest of an export."""


def change_opened(export: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    records = [json.loads(line) for line in (export / OPENED).read_bytes().splitlines()]
    (export / OPENED).write_text("".join(json.dumps(each) + "\n" for each in change(records)))


def unsigned_manifest(export: Path) -> None:
    stated = json.loads(json.loads((export / MANIFEST).read_bytes())["statement"])
    (export / MANIFEST).write_text(json.dumps(stated["files"]))


def with_personal(record: dict, text: str) -> dict:
    return {**record, "personal": {**record["personal"], "input": text}}


OF_EXPORTS: dict[str, Callable[[Path], object]] = {
    "an opened text is forged": lambda export: change_opened(
        export, lambda records: [with_personal(records[0], "I agree"), *records[1:]]
    ),
    "an opened record is forged": lambda export: change_opened(
        export, lambda records: [{**records[0], "status": 403}, *records[1:]]
    ),
    "an opened record is dropped": lambda export: change_opened(export, lambda records: records[1:]),
    "an opened record is added": lambda export: change_opened(
        export, lambda records: [*records, {**records[0], "seq": 10**6}]
    ),
    "the opened texts are removed": lambda export: (export / OPENED).unlink(),
    "the opened texts are no records": lambda export: (export / OPENED).write_text("nothing\n"),
    "the manifest is removed": lambda export: (export / MANIFEST).unlink(),
    "the manifest is not signed": unsigned_manifest,
    "the manifest is a seal": lambda export: copied(
        next((export / "log").glob("*.seal.json")), export / MANIFEST
    ),
    "the words are changed": lambda export: altered(export / "README.md", b"Audit log", b"Poem"),
    "the verifier is changed": lambda export: (export / "verify.py").write_text("print('nothing is wrong')"),
    "the keys are removed": lambda export: shutil.rmtree(export / "keys"),
    "a key is exchanged under its name": lambda export: next((export / "keys").glob("*.pub")).write_text(
        "no"
    ),
    "a file is added beside the log": lambda export: (export / "more.jsonl").write_text("{}"),
}
"""Found by the verifier that an export brings along; nothing of it lies in an installation."""

"""Checks an exported audit log with nothing but Python's standard library and the `openssl` command.

    python3 verify.py [folder] [--key ID]...

Trust is yours to give: name the key ids that the installation's owner told you with --key, then only these
count. Without it every key in `keys/` counts, and their ids are printed for you to compare. Exit code 1 if
anything is wrong. The walk along the chain is the one of `llm-assets audit verify` too.

Not found: an export that was exchanged for an earlier one of the same log (compare when it was made and how
far it goes, both are printed), and another program in place of this one.
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

GENESIS = "0" * 64
LINES, SEAL, DELETED, HEAD = ".jsonl", ".seal.json", ".deleted.json", "head.json"
PART = re.compile(r"(\d{12,})(\.jsonl|\.seal\.json|\.deleted\.json)")
END = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n?$')
BATCH = re.compile(rb',"batch":"([0-9a-f]{64}):([A-Za-z0-9+/=]+)"$')
MANIFEST, OPENED = "manifest.json", "opened.jsonl"
NO_FILE = -1  # the size of a link or a folder
PRIVATE = ("personal", "personal_actor")

Check = Callable[[bytes, str, bytes], None]
"""Given a text, the id of a key and a signature: raises Untrusted where they do not fit."""


class Untrusted(Exception):
    """A statement is none, was altered, or was signed by nobody who is trusted."""


class Fault(NamedTuple):
    """One thing that is wrong. `line` counts from 1, 0 is the whole file."""

    file: str
    line: int
    problem: str


def statement(content: bytes, check: Check) -> "dict[str, Any]":
    """What is stated in the content of a signed file.

    Raises:
        Untrusted: It is no signed statement, or its signature does not count.
    """
    try:
        file = json.loads(content)
        text, key = str(file["statement"]).encode(), str(file["key"])
        signature = base64.b64decode(file["signature"], validate=True)
        stated = dict(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted(f"it is no signed statement: {error!r}") from error
    check(text, key, signature)
    return stated


def batch_signature(line: bytes) -> "tuple[bytes, str, bytes] | None":
    """The text, key id and signature of the last line of a batch; None for any other line."""
    end = END.search(line)
    before = line[: end.start()] if end else b""
    found = BATCH.search(before)
    if not found:
        return None
    return before[: found.start()] + b"}", found[1].decode(), base64.b64decode(found[2])


class Walk:
    """Along one chain; `seq` and `hash` are those of the record before."""

    def __init__(
        self,
        folder: Path,
        tenant: str,
        check: Check,
        files: "dict[str, int] | None" = None,
        watched: "frozenset[int]" = frozenset(),
    ) -> None:
        """`files`: names and sizes at one moment, if the log may grow. `watched`: records to remember."""
        self.folder, self.tenant, self._check = folder, tenant, check
        self._files = sizes_in(folder) if files is None else files
        self.faults: list[Fault] = []
        self.seq, self.hash = 0, GENESIS
        self.records = self.segments = self.deleted = self.deleted_to = 0
        self.hashes: dict[int, str] = {}
        self.remembered: dict[int, dict[str, Any]] = {}
        self._watched = watched
        self.head = (0, "")
        self._unsigned = self._batches_behind = 0
        self._closed_behind = False

    def run(self, *, headed: bool) -> None:
        """`headed`: whether `read_head` found one.

        Raises:
            FileNotFoundError: A file was deleted meanwhile, because it was due.
        """
        lines, seals, proofs = self._parts()
        proven = {first for first in proofs if self._proof(first)}
        left = [first for first in lines if first not in proven]
        for first in left:
            self._segment(first, closed=first in seals, last=first == left[-1])
        for first in seals:
            if first not in lines and first not in proven:
                self._fault(_name(first, LINES), 0, "the segment is missing; its seal is there")
        if headed:
            self._compare_end(_name(left[-1], LINES) if left else HEAD)

    def _parts(self) -> "tuple[list[int], list[int], list[int]]":
        found: dict[str, list[int]] = {LINES: [], SEAL: [], DELETED: []}
        for name in sorted(self._files):
            part = PART.fullmatch(name)
            if self._files[name] == NO_FILE:
                self._fault(name, 0, "it is no plain file")
            elif part and name == _name(int(part[1]), part[2]):
                found[part[2]].append(int(part[1]))
            elif name != HEAD:
                self._fault(name, 0, "it is no part of a log")
        return sorted(found[LINES]), sorted(found[SEAL]), sorted(found[DELETED])

    def read_head(self) -> bool:
        """Whether there is a head that counts; of the same moment as the sizes."""
        if self._files.get(HEAD, NO_FILE) == NO_FILE:
            self._fault(HEAD, 0, "the signed head is missing")
            return False
        head = self._statement(HEAD, "the head", "head")
        if head is None:
            return False
        self.head = (int(head["seq"]), str(head["hash"]))
        return True

    def _proof(self, first: int) -> bool:
        name = _name(first, DELETED)
        proof = self._statement(name, "the proof of deletion", "deletion")
        if proof is None:
            return False
        if (proof["first"], proof["previous"]) != (self.seq + 1, self.hash) or proof["first"] != first:
            self._fault(name, 0, f"the proof begins at {proof['first']}, expected was {self.seq + 1}")
        self.seq, self.hash = int(proof["last"]), str(proof["hash"])
        self.deleted_to, self.deleted = self.seq, self.deleted + 1
        self._note(_name(first, DELETED), 0)
        return True

    def _segment(self, first: int, *, closed: bool, last: bool) -> None:
        self.segments += 1
        name = _name(first, LINES)
        if first != self.seq + 1:
            gap = f"records {self.seq + 1} to {first - 1} before it are missing"
            self._fault(name, 0, gap if first > self.seq else "it repeats earlier records")
            self.seq = first - 1
        before, digest = self.hash, hashlib.sha256()
        for number, line in enumerate(self._lines(name), 1):
            digest.update(line)
            if line.endswith(b"\n") or closed or not last:  # else it was never finished, and is no record
                self._line(name, number, line, closed=closed)
        if closed:
            self._seal(first, before, digest.hexdigest())
        elif not last:
            self._fault(_name(first, SEAL), 0, "the signature that closed this segment is missing")

    def _lines(self, name: str) -> Iterator[bytes]:
        left = self._files[name]
        with (self.folder / name).open("rb") as stream:
            for line in stream:
                if not left:
                    return
                yield line[:left]
                left -= len(line[:left])

    def _line(self, name: str, number: int, line: bytes, *, closed: bool) -> None:
        self.records += 1
        if not line.endswith(b"\n"):
            self._fault(name, number, "torn: the line has no end")
        end = END.search(line)
        claimed = end[1].decode() if end else ""
        record = self._record(name, number, line, claimed)
        if record is not None:
            self._order(name, number, record)
        self.hash = claimed
        self._note(name, number)
        if self.seq in self._watched and record is not None:
            self.remembered[self.seq] = record
        if self.seq > self.head[0] and not closed:
            self._behind_the_head(line)

    def _record(self, name: str, number: int, line: bytes, claimed: str) -> "dict[str, Any] | None":
        end = END.search(line)
        if not end or hashlib.sha256(line[: end.start()] + b"}").hexdigest() != claimed:
            self._fault(name, number, "edited: its hash does not fit its content")
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            self._fault(name, number, f"edited: it is no record ({error})")
            self.seq += 1
            return None

    def _order(self, name: str, number: int, record: "dict[str, Any]") -> None:
        seq, expected = record.get("seq"), self.seq + 1
        if not isinstance(seq, int):
            self._fault(name, number, "edited: it has no sequence number")
            seq = expected
        elif seq > expected:
            self._fault(name, number, f"dropped: records {expected} to {seq - 1} are missing before it")
        elif seq < expected:
            self._fault(name, number, f"reordered: it is record {seq}, expected was {expected}")
        elif record.get("previous") != self.hash:
            self._fault(name, number, "it does not follow the record before it: one of them was exchanged")
        if record.get("tenant") != self.tenant:
            self._fault(name, number, f"it is a record of {record.get('tenant')}")
        self.seq = seq

    def _note(self, name: str, number: int) -> None:
        """Compares with the head, and remembers what was asked for."""
        if self.seq in self._watched:
            self.hashes[self.seq] = self.hash
        if self.seq == self.head[0] and self.hash != self.head[1]:
            said = f"exchanged: the head was signed over another record {self.seq}"
            self._fault(name, number, said)

    def _behind_the_head(self, line: bytes) -> None:
        """A kill between a batch and its head leaves one batch there, which its last line signs."""
        self._unsigned += 1
        signed = batch_signature(line)
        if signed is None:
            return
        try:
            self._check(*signed)
        except Untrusted:
            return
        self._unsigned, self._batches_behind = 0, self._batches_behind + 1

    def _seal(self, first: int, before: str, sha256: str) -> None:
        name = _name(first, LINES)
        seal = self._statement(_name(first, SEAL), "the seal", "segment")
        if seal is None:
            return
        found = {"first": first, "last": self.seq, "hash": self.hash, "sha256": sha256}
        if differ := [each for each, value in found.items() if seal.get(each) != value]:
            self._fault(name, 0, f"it is not what was closed and signed: {', '.join(differ)} differ")
        if seal.get("previous") != before:
            self._fault(name, 0, "the segment before it is not the one that was there when it was signed")
        self._closed_behind |= self.seq > self.head[0]

    def _compare_end(self, last: str) -> None:
        if self.head[0] > self.seq:
            said = f"truncated: the head covers records up to {self.head[0]}, there are {self.seq}"
            self._fault(HEAD, 0, said)
        if self.head[0] < self.deleted_to or self._closed_behind or self._batches_behind > 1:
            said = f"older: it is of record {self.head[0]}, later ones were signed after it"
            self._fault(HEAD, 0, said)
        if self._unsigned:
            said = f"added: nobody signed its last {self._unsigned} records"
            hint = "a collector that was killed while it wrote takes them back when it runs again"
            self._fault(last, 0, f"{said}; {hint}")

    def _statement(self, name: str, what: str, kind: str) -> "dict[str, Any] | None":
        try:
            stated = statement((self.folder / name).read_bytes(), self._check)
        except Untrusted as error:
            self._fault(name, 0, f"bad signature: {what}: {error}")
            return None
        if stated.get("kind") != kind or stated.get("tenant") != self.tenant:
            self._fault(name, 0, f"{what} is one of {stated.get('tenant')} ({stated.get('kind')})")
            return None
        return stated

    def _fault(self, file: str, line: int, problem: str) -> None:
        self.faults.append(Fault(file, line, problem))


def sizes_in(folder: Path) -> "dict[str, int]":
    """Names and sizes in a log's folder, but of unfinished files: their names begin with a dot."""
    found = {path.name: path.lstat() for path in folder.glob("[!.]*")}
    return {name: each.st_size if stat.S_ISREG(each.st_mode) else NO_FILE for name, each in found.items()}


def _name(first: int, suffix: str) -> str:
    return f"{first:012d}{suffix}"


class Export:
    """An exported folder. With `trusted` key ids, no other key counts."""

    def __init__(self, folder: Path, trusted: "frozenset[str]" = frozenset()) -> None:
        self.folder, self._trusted = folder, trusted
        self.used: set[str] = set()
        self.faults: list[Fault] = []

    def verify(self) -> str:
        """What it is, in one line; `faults` are what is wrong."""
        manifest = self._manifest()
        tenant = str(manifest.get("tenant"))
        opened = self._opened()
        walk = Walk(self.folder / "log", tenant, self._check, watched=frozenset(opened))
        try:
            walk.run(headed=walk.read_head())
        except FileNotFoundError as error:
            self._fault(str(error.filename), "it is missing")
        self.faults += walk.faults
        for seq, records in opened.items():
            for record in records:
                if _public(record) != _public(walk.remembered.get(seq, {})):
                    self._fault(OPENED, f"forged: record {seq} is not the one in the log")
        if manifest and (manifest.get("seq"), manifest.get("hash")) != walk.head:
            said = f"it was made of a log whose head was of record {manifest.get('seq')}"
            self._fault(MANIFEST, f"{said}, here it is of {walk.head[0]}")
        keys = ", ".join(sorted(self.used)) or "none"
        made = f"exported at {manifest.get('at')} by {manifest.get('by')}"
        return (
            f"{tenant}: {walk.records} records up to number {walk.seq}, {made}; signed with the keys: {keys}"
        )

    def _manifest(self) -> "dict[str, Any]":
        """The signed list of every file, compared with what is here."""
        path = self.folder / MANIFEST
        if not path.is_file():
            self._fault(MANIFEST, "it is missing")
            return {}
        try:
            stated = statement(path.read_bytes(), self._check)
        except Untrusted as error:
            self._fault(MANIFEST, f"bad signature: {error}")
            return {}
        if stated.get("kind") != "export":
            self._fault(MANIFEST, f"it is a signed statement of another kind: {stated.get('kind')}")
            return {}
        listed, found = dict(stated["files"]), digests_in(self.folder)
        for name in sorted(listed.keys() | found.keys()):
            if name not in found:
                self._fault(name, "it is missing")
            elif name not in listed:
                self._fault(name, "it was added")
            elif listed[name] != found[name]:
                self._fault(name, "it is not the file that was exported")
        return stated

    def _opened(self) -> "dict[int, list[dict[str, Any]]]":
        """Records with readable texts, by their number in the log."""
        path, found = self.folder / OPENED, {}  # type: Path, dict[int, list[dict[str, Any]]]
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                record = dict(json.loads(line))
                found.setdefault(int(record["seq"]), []).append(record)
            except (ValueError, TypeError, KeyError, RecursionError):
                self._fault(OPENED, "forged: it holds a line that is no record")
        return found

    def _check(self, text: bytes, key: str, signature: bytes) -> None:
        public = self.folder / "keys" / f"{key}.pub"
        if not re.fullmatch("[0-9a-f]{64}", key) or not public.is_file():
            raise Untrusted(f"there is no key {key[:64]!r} in keys/")
        if hashlib.sha256(public.read_bytes()).hexdigest() != key:
            raise Untrusted(f"keys/{key}.pub is not the key of that id")
        if self._trusted and key not in self._trusted:
            raise Untrusted(f"it is signed with the key {key}, which --key does not name")
        with tempfile.TemporaryDirectory() as scratch:
            files = Path(scratch, "signature"), Path(scratch, "text")
            files[0].write_bytes(signature)
            files[1].write_bytes(text)
            command = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", *map(str, files)]
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise Untrusted(f"its signature does not fit (key {key})")
        self.used.add(key)

    def _fault(self, file: str, problem: str) -> None:
        self.faults.append(Fault(file, 0, problem))


def digests_in(folder: Path) -> "dict[str, str]":
    """The SHA-256 of every file of an export but its manifest."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return {name: _digest(folder / name) for name in names if name != MANIFEST}


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "no plain file"
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _public(record: "dict[str, Any]") -> "dict[str, Any]":
    return {name: value for name, value in record.items() if name not in PRIVATE}


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks an exported audit log.")
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--key", action="append", default=[], help="a key id that you trust")
    asked = parser.parse_args()
    if shutil.which("openssl") is None:
        parser.error("the command `openssl` is not installed; signatures are checked with it")
    export = Export(asked.folder, frozenset(asked.key))
    print(export.verify())
    for fault in export.faults:
        place = f"{fault.file}, line {fault.line}" if fault.line else fault.file
        print(f"{place}: {fault.problem}")
    if not asked.key:
        print("Every key in keys/ counted. Compare the ids above with the owner's, or name those with --key.")
    if not export.faults:
        print("nothing is wrong")
    return 1 if export.faults else 0


if __name__ == "__main__":
    sys.exit(main())

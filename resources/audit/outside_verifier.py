"""Checks an exported audit log with nothing but Python's standard library and the `openssl` command.

    python3 verify.py [folder]

Trust is yours to give: compare the key id that it prints with the one that the installation's owner told you.
Exit code 1 if anything is wrong.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TAIL = len(',"hash":""}') + 64


def statement(folder: Path, path: Path) -> dict[str, Any]:
    """The signed statement in a file; ends the program where its signature does not fit."""
    file = json.loads(path.read_text())
    key = folder / "keys" / f"{file['key']}.pub"
    with tempfile.TemporaryDirectory() as scratch:
        signature, text = Path(scratch, "signature"), Path(scratch, "text")
        signature.write_bytes(base64.b64decode(file["signature"]))
        text.write_text(file["statement"])
        command = ["openssl", "dgst", "-sha256", "-verify", str(key), "-signature", str(signature), str(text)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            sys.exit(f"{path}: the signature does not fit (key {file['key']})")
    return dict(json.loads(file["statement"]))


def check(folder: Path) -> list[str]:
    """Everything that is wrong."""
    wrong, log = [], folder / "log"
    seq, previous = 0, "0" * 64
    for proof in sorted(log.glob("*.deleted.json")):
        deleted = statement(folder, proof)
        if (deleted["first"], deleted["previous"]) != (seq + 1, previous):
            wrong.append(f"{proof.name}: it does not follow what was before it")
        seq, previous = deleted["last"], deleted["hash"]
    for segment in sorted(log.glob("*.jsonl")):
        for number, line in enumerate(segment.read_bytes().splitlines(), 1):
            record = json.loads(line)
            if hashlib.sha256(line[:-TAIL] + b"}").hexdigest() != record["hash"]:
                wrong.append(f"{segment.name}, line {number}: edited")
            if (record["seq"], record["previous"]) != (seq + 1, previous):
                wrong.append(f"{segment.name}, line {number}: it does not follow the line before it")
            seq, previous = record["seq"], record["hash"]
        seal = segment.with_suffix(".seal.json")
        if seal.exists():
            closed = statement(folder, seal)
            found = (seq, previous, hashlib.sha256(segment.read_bytes()).hexdigest())
            if (closed["last"], closed["hash"], closed["sha256"]) != found:
                wrong.append(f"{segment.name}: it is not what was signed")
    head = statement(folder, log / "head.json")
    if (head["seq"], head["hash"]) != (seq, previous):
        wrong.append(f"the signed head is of record {head['seq']}, the last one here is {seq}")
    print(f"{head['tenant']}: {seq} records, keys {[path.stem for path in (folder / 'keys').glob('*.pub')]}")
    return wrong


if __name__ == "__main__":
    faults = check(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(faults) or "nothing is wrong")
    sys.exit(1 if faults else 0)

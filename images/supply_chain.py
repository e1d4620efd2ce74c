"""What is locked, as a bill of materials, and whether anything in it has a known vulnerability.

    python images/supply_chain.py sbom [--to FOLDER]     CycloneDX (JSON) of each lock
    python images/supply_chain.py audit [--required]     pip-audit of each lock

Both read the locks alone: what an image holds of Python, not the packages of its Debian base (its scanner
lists those) nor the weights that it is given. pip-audit's own settings count
(`PIP_AUDIT_VULNERABILITY_SERVICE`, `PIP_AUDIT_OSV_URL` of a mirror). Where no database answers nothing was
audited, and that is what it says: pip-audit itself would say "no known vulnerabilities".
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "platform": "images/platform/cluster.lock.txt",
    "platform-laptop": "images/platform/platform.lock.txt",
    "train-cpu": "images/train/cpu.lock.txt",
    "train-cuda": "images/train/cuda.lock.txt",
    "serve-cpu": "images/serve/cpu.lock.txt",
    "serve-cuda": "images/serve/cuda.lock.txt",
}
"""By the name of its image and device; what only develops or tests the platform reaches no image."""
TIMEOUT_S = 10
Requirement = tuple[str, str]
"""Name and version."""
NOT_AUDITED = "NOT AUDITED: no database of vulnerabilities answers"


class AuditFailedError(Exception):
    """pip-audit could not ask, or was not answered."""


def main(arguments: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    commands.add_parser("sbom").add_argument("--to", type=Path, default=ROOT / "dist" / "sbom")
    commands.add_parser("audit").add_argument("--required", action="store_true")
    given = options.parse_args(arguments)
    return write_boms(given.to) if given.command == "sbom" else audit(required=given.required)


def write_boms(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lock in LOCKS.items():
        path = folder / f"{name}.cdx.json"
        command = [_program("cyclonedx-py"), "requirements", lock, "--pyproject", "pyproject.toml"]
        command += ["--output-reproducible", "--short-PURLs", "-o", str(path)]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        count = len(json.loads(path.read_text())["components"])
        print(f"{path}: {count} components of {lock}")
    return 0


def audit(*, required: bool) -> int:
    """Exit code: 0 nothing known, 1 something is, 2 not audited though it had to be."""
    locked = {name: set(_requirements(ROOT / lock)) for name, lock in LOCKS.items()}
    known: dict[Requirement, list[str]] = {}
    try:
        _ask([min(set.union(*locked.values()))])  # one first: that nobody answers is soon known
        for batch in _batches(set.union(*locked.values())):
            known |= _ask(batch)
    except AuditFailedError as error:
        print(f"{NOT_AUDITED}: {error}\nSet PIP_AUDIT_OSV_URL to a mirror's, or run it where one is reached.")
        return 2 if required else 0
    for name, packages in locked.items():
        found = [
            f"{package} {version}: {each}"
            for package, version in sorted(packages)
            for each in known[package, version]
        ]
        print(f"{name}: {len(packages)} packages, {len(found)} known vulnerabilities", *found, sep="\n  ")
    return 1 if any(known.values()) else 0


def _batches(all_of: set[Requirement]) -> Iterator[list[Requirement]]:
    """Each package once in a batch: images may hold different versions of it."""
    left = sorted(all_of)
    while left:
        batch = dict(left)
        yield list(batch.items())
        left = [each for each in left if each not in batch.items()]


def _requirements(lock: Path) -> Iterator[Requirement]:
    """Name and version; `+cpu` and the like are left out, which no database knows."""
    for line in lock.read_text().splitlines():
        if line and line[0].isalnum() and "==" in line:
            name, version = line.split(" ")[0].replace("===", "==").split("==")
            yield name, version.split("+")[0]


def _ask(batch: list[Requirement]) -> dict[Requirement, list[str]]:
    """What pip-audit says of each.

    Raises:
        AuditFailedError: It could not ask, or was not answered on one of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements, answer = Path(folder) / "requirements.txt", Path(folder) / "answer.json"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in batch))
        command = [_program("pip-audit"), "-r", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner=off", f"--timeout={TIMEOUT_S}", "--format=json", f"--output={answer}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise AuditFailedError(f"pip-audit ended with exit code {done.returncode}: {last}")
        found = json.loads(answer.read_text())["dependencies"]
    skipped = [each["skip_reason"] for each in found if "skip_reason" in each]
    if skipped or len(found) != len(batch):
        raise AuditFailedError(f"{len(skipped)} of {len(batch)} were not looked up, such as: {skipped[:1]}")
    return {
        (each["name"], each["version"]): [_told(vulnerability) for vulnerability in each["vulns"]]
        for each in found
    }


def _told(vulnerability: dict[str, Any]) -> str:
    return f"{vulnerability['id']}, mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Takes out of the platform's image what nothing there reads: half a gigabyte of 1.2.

    python3 images/platform/slim.py /opt/venv

Run once, in the image's build stage, on the environment that `bootstrap.py --lock cluster` made. It needs
`strip` (Debian's binutils). What each entry saves is in docs/decisions/2026-11-30-packaging.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

UNREAD = {
    "tests of packages": ["**/tests"],
    "source maps of web pages": ["**/*.map"],
    "descriptions of all of Google's services: dagster-gcp needs one and gets it from the service": [
        "googleapiclient/discovery_cache/documents",
    ],
    "which town or network a telephone number belongs to": [
        "phonenumbers/geodata",
        "phonenumbers/carrierdata",
    ],
    "a second client of Kubernetes, for asyncio": ["kubernetes/aio"],
    "installers, where nothing is installed any more": ["pip", "uv", "../../../bin/pip*", "../../../bin/uv*"],
}
"""Why, and what: patterns from site-packages."""
UNSTRIPPED = ("blis", "cymem", "murmurhash", "preshed", "spacy", "srsly", "thinc", "uvloop")
"""Packages whose compiled modules come with the symbols of a debugger, which are most of them."""


def main(environment: Path) -> None:
    [packages] = environment.glob("lib/python3.*/site-packages")
    found = [path for patterns in UNREAD.values() for pattern in patterns for path in packages.glob(pattern)]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it lay in a folder that has gone
    for module in sorted(path for name in UNSTRIPPED for path in (packages / name).rglob("*.so")):
        _strip(module)


def _strip(module: Path) -> None:
    """Into a new file: uv links files from its cache, and others have the same file linked."""
    stripped = module.with_suffix(".stripped")
    subprocess.run(["strip", "--strip-unneeded", "-o", stripped, module], check=True)
    stripped.replace(module)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""`make fuzz`: rounds of the tests in this folder, each with another seed, until the time is over.

    python -m tests.fuzz.nightly --minutes 60

A round gives each test `EXAMPLES` inputs. What fails is shown as small as Hypothesis can make it,
and kept in `.hypothesis`: any later run of that test on this machine tries it first. Exit code 1 where one
failed.
"""

import argparse
import secrets
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FAILED = 1  # pytest's: tests ran and some failed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--test", default="", help="only tests whose name holds this, as in pytest's -k")
    given = options.parse_args()
    end, rounds, failed = time.monotonic() + given.minutes * 60, 0, 0
    while not rounds or time.monotonic() < end:
        rounds += 1
        seed = secrets.randbits(32)
        print(f"round {rounds}, seed {seed}", flush=True)
        failed += _round(seed, given.test)
    print(f"{rounds} rounds, {failed} with failures")
    sys.exit(1 if failed else 0)


def _round(seed: int, test: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", str(HERE), "--hypothesis-profile=fuzz"]
    command += [f"--hypothesis-seed={seed}", "-p", "no:cacheprovider", *(["-k", test] if test else [])]
    status = subprocess.run(command, check=False).returncode
    if status not in (0, FAILED):
        sys.exit(f"pytest itself failed with exit code {status}: no test was run")
    return status == FAILED


if __name__ == "__main__":
    main()

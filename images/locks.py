"""Resolves every lock file again, with `uv pip compile` (`make lock`; ARGS=--upgrade for newer versions).

Locks are requirements files with hashes: no addresses of indexes, no paths, wheels only. They are resolved
against the default index alone (and find-links, which may hold CPU torch): the hashes of the files of some
other index would not fit anywhere else.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resources.engines.package_indexes import uv_environment, with_torch_index  # noqa: E402 (path set up above)

PLATFORM = "images/platform"
PROJECT = ["pyproject.toml", "--override", f"{PLATFORM}/overrides.txt"]
# lock: what goes into it, and further options.
LOCKS: dict[str, list[str]] = {
    f"{PLATFORM}/cluster.lock.txt": [*PROJECT, "--extra", "cluster"],
    # The same versions in all three, so that a test on a laptop says something about the image.
    f"{PLATFORM}/platform.lock.txt": [*PROJECT, "-c", f"{PLATFORM}/cluster.lock.txt"],
    f"{PLATFORM}/dev.lock.txt": [*PROJECT, "--extra", "dev", "-c", f"{PLATFORM}/cluster.lock.txt"],
    f"{PLATFORM}/bootstrap.lock.txt": [
        f"{PLATFORM}/bootstrap.in",
        *("-c", f"{PLATFORM}/dev.lock.txt"),
        *("-c", f"{PLATFORM}/cluster.lock.txt"),
    ],
    "images/train/cpu.lock.txt": ["images/train/cpu.in", "--override", "images/train/cpu.overrides.txt"],
    "images/train/cuda.lock.txt": ["images/train/cuda.in"],
    "images/serve/cpu.lock.txt": ["images/serve/cpu.in", "--override", "images/serve/cpu.overrides.txt"],
    "images/serve/cuda.lock.txt": ["images/serve/cuda.in"],
    "benchmarks/litellm.lock.txt": ["benchmarks/litellm.in"],
}
OPTIONS = [
    "--generate-hashes",
    *("--python-version", "3.11"),
    *("--python-platform", "x86_64-manylinux_2_31"),  # vLLM's llguidance has nothing older
    *("--only-binary", ":all:"),  # building from source would fetch unlocked build tools
    *("--annotation-style", "line"),
    *("--custom-compile-command", "make lock"),
    "--no-emit-index-url",
    "--no-emit-find-links",
]
# `==2.13.0` takes 2.13.0+cpu as well, and prefers it where a folder of wheels holds it; `===` does not.
WITH_CPU_BUILDS = re.compile(r"^(torch|torchaudio|torchvision)===?", re.MULTILINE)
FOREIGN = re.compile(r"://|^-|@ |(?<![\w.])/\w", re.MULTILINE)


def main(arguments: list[str]) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    environment = {k: v for k, v in uv_environment().items() if k not in {"UV_INDEX", "UV_EXTRA_INDEX_URL"}}
    for lock, inputs in LOCKS.items():
        cpu = lock.endswith("/cpu.lock.txt")
        # A find-links folder with CPU torch would satisfy `torch==2.13.0` too.
        own = {k: v for k, v in environment.items() if cpu or k != "UV_FIND_LINKS"}
        own = with_torch_index(own, uv=uv, requirement="torch==2.13.0+cpu") if cpu else own
        print(lock, flush=True)
        command = [uv, "pip", "compile", "--quiet", *OPTIONS, *arguments, "--output-file", lock, *inputs]
        subprocess.run(command, cwd=ROOT, env=own, check=True, stdout=subprocess.DEVNULL)
        if lock.endswith("/cuda.lock.txt"):
            (ROOT / lock).write_text(WITH_CPU_BUILDS.sub(r"\1===", (ROOT / lock).read_text()))
        found = FOREIGN.search((ROOT / lock).read_text())
        if found:
            sys.exit(f"{lock}: an address, an option or a path got into the lock: {found[0]!r}")


if __name__ == "__main__":
    main(sys.argv[1:])

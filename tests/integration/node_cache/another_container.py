"""Holds the artifact of `test_processes.py` until standard input ends; run in namespaces of its own."""

import os
import sys
from pathlib import Path

from tests.integration.node_cache.conftest import CHUNK, a_node, some_bytes

if __name__ == "__main__":
    node = a_node(Path(sys.argv[1]), limit_bytes=20 * CHUNK, pause_s=0.05)
    artifact = node.source.artifact("v1", {"weights": some_bytes(12 * CHUNK)})
    with node.hold(artifact):
        print(f"pid {os.getpid()} holds", flush=True)
        sys.stdin.read()

"""The cache belongs to one user, for whom not every file is writable; these tests become `nobody`."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.artifact_store.artifacts import ArtifactError
from resources.node_cache.places import Places
from tests.integration.node_cache.conftest import FORK, a_node, hold_and_compare, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_process_of_another_user_is_told_so(umask: int) -> None:
    why = "Permission denied" if umask & 0o005 else "belongs to another user"
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        node, answers = a_node(Path(place)), FORK.SimpleQueue()
        artifact = node.source.artifact("v1", {"weights": b"weights"})
        node.fetch(artifact)

        def as_nobody() -> None:
            os.setuid(65534)
            try:
                node.fetch(artifact)
            except ArtifactError as error:
                answers.put(str(error))
            else:
                answers.put("no error")

        with running(as_nobody) as (process,):
            process.join(30)
            assert process.exitcode == 0
        assert re.search(rf"cannot be kept at .*{why}.*\. Set LLM_ASSETS_CACHE", answers.get())


def test_a_part_that_was_read_only_when_its_process_was_killed_is_finished() -> None:
    """Nobody fetches here, because for root every file is writable."""
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, 65534, 65534)

        def as_nobody() -> None:
            os.setuid(65534)
            node = a_node(Path(place))
            node.fetch(node.source.artifact("v0", {"other": b"makes the folders"}))
            artifact = node.source.artifact("v1", {"weights": b"weights"})
            part = Places(root=node.cache.root).part(artifact.files[0])
            part.write_bytes(b"wei")
            part.chmod(0o444)
            hold_and_compare(node, artifact)

        with running(as_nobody) as (process,):
            process.join(30)
            assert process.exitcode == 0

"""A few held-out rows of a prepared dataset, as messages and the reply that training would have taught."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llm_assets.datasets.dataset_info import listed_files
from llm_assets.datasets.examples import Example
from llm_assets.datasets.landing_zone import opened_landing_zone
from llm_assets.datasets.limits import Limits
from llm_assets.datasets.mistakes import Mistakes
from llm_assets.datasets.reading import read_rows
from llm_assets.datasets.rows import HELD_OUT, read_example
from resources.artifact_store.artifacts import Artifact
from resources.artifact_store.store import ArtifactStore
from resources.artifact_store.transfer_progress import Log

OF_OUR_OWN = Limits(
    row_bytes=2**62, size_bytes=2**62, rows=2**62
)  # it was within limits when it was prepared
CONVERSATION = {"user", "assistant"}


def published_held_out_rows(
    store: ArtifactStore, dataset: Artifact, most: int, *, log: Log
) -> list[dict[str, Any]]:
    """As `held_out_rows` of a published dataset."""
    with store.hold(dataset, log) as held:
        return held_out_rows(held.folder, most)


def held_out_rows(dataset: Path, most: int) -> list[dict[str, Any]]:
    """At most `most` rows, each `messages` (system, user, assistant) and `reply`; perhaps none.

    Plain text has no messages. Rows with tools are left out.

    Raises:
        DatasetError: The dataset is not one that was prepared here.
    """
    return list(islice(_rows(dataset), most))


def _rows(dataset: Path) -> Iterator[dict[str, Any]]:
    with opened_landing_zone(dataset, dataset, OF_OUR_OWN) as folder:
        listing = listed_files(folder)
        for file in listing.files if listing else ():
            if file.entry != HELD_OUT:
                continue
            mistakes = Mistakes()
            for _, row in read_rows(folder, file.path, mistakes):
                example = read_example(row, file.layout)
                if not example.tools and {turn.role for turn in example.turns} <= CONVERSATION:
                    yield _as_messages(example)
            mistakes.refuse()


def _as_messages(example: Example) -> dict[str, Any]:
    if not example.answers:
        return {"messages": [], "reply": example.turns[0].content}
    system = [{"role": "system", "content": example.system}] if example.system else []
    turns = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    return {"messages": system + turns, "reply": example.answers[0].content}

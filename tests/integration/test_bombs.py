"""Each bomb is one clear error, in bounded memory and time, whoever reads it (`bombs.py` has the table)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.integration import bombs

MOST_MIB = 96  # a file beside a model's weights may have 64, a row here 1
MOST_SECONDS = 5.0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What each reader said of its bombs, read one after the other in a process of its own."""
    folder = tmp_path_factory.mktemp("bombs")
    done = subprocess.run(
        [sys.executable, bombs.__file__, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"ended at {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    read = [json.loads(line) for line in done.stdout.splitlines()]
    return {(each["reader"], each["bomb"]): each for each in read}


@pytest.mark.parametrize(
    ("reader", "bomb"), [pytest.param(read.__name__, bomb, id=bomb.name) for read, bomb in bombs.all_bombs()]
)
def test_a_bomb_is_one_clear_error_in_bounded_memory_and_time(
    results: dict[tuple[str, str], dict[str, Any]], reader: str, bomb: bombs.Bomb
) -> None:
    found = results[reader, bomb.name]
    assert re.search(bomb.said, found["said"]), found["said"][:2000]
    assert found["said"].count("\n") == 0
    assert found["mib"] < MOST_MIB
    assert found["s"] < MOST_SECONDS


def test_every_limit_of_datasets_with_a_setting_is_met_by_a_bomb() -> None:
    settings = re.compile("LLM_ASSETS_DATASET_[A-Z_]+")
    met = {name for bomb in bombs.DATASETS for name in settings.findall(bomb.said)}
    page = Path(ROOT / "docs" / "reference" / "settings.md").read_text()
    assert met == set(settings.findall(page))

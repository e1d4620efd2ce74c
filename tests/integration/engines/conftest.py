"""A place to install engines in, one for each test."""

from pathlib import Path

import pytest

from tests.integration.engines.sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)

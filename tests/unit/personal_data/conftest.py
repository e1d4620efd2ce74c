"""One detector for all: it takes a second to load."""

import pytest

from resources.personal_data.detector import Detector


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector()

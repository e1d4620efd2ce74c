"""Servings as those of the serving tests."""

from tests.integration.serving.conftest import make_serving

__all__ = ["make_serving"]

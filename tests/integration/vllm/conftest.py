"""Servings as those of the serving tests."""

from tests.integration.serving.conftest import make_serving, store

__all__ = ["make_serving", "store"]

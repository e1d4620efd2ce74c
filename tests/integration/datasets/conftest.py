"""The tokenizer and landing zone of the unit tests."""

from tests.unit.datasets.conftest import prepared, tokenizer_file, zone

__all__ = ["prepared", "tokenizer_file", "zone"]

"""The one error of everything that brings a base model in."""

from resources.errors import LlmAssetsError


class BaseModelSourceError(LlmAssetsError):
    """A base model cannot be had from its source, or what came is not whole. Says which, and the remedy."""

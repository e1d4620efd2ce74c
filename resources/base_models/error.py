"""The one error of everything that brings a base model in."""


class BaseModelSourceError(Exception):
    """A base model cannot be had from its source, or what came is not whole. Says which, and the remedy."""

"""A step's parameters, read once: Dagster 1.13 asks `inspect.signature` for them 17 times a step."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def read_once(function: Function) -> Function:
    """Keeps the parameters at the function, where `inspect` and Dagster look first (PEP 362)."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function

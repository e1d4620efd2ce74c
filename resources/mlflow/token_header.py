"""The token that our own MLflow clients send: a plugin of MLflow (`request_header_provider`).

MLflow's own way, `MLFLOW_TRACKING_TOKEN`, goes to every MLflow server that the process talks to and is
inherited by what it starts. This one is sent within the block that talks to the server it is for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TOKEN: ContextVar[str | None] = ContextVar("token of MLflow", default=None)


@contextmanager
def sent_token(token: str | None) -> Iterator[None]:
    """Every request of this thread to MLflow within the block carries the token."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


class TokenHeader:
    """What MLflow asks for headers; named in pyproject.toml as an entry point."""

    def in_context(self) -> bool:
        return _TOKEN.get() is not None

    def request_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {_TOKEN.get()}"}

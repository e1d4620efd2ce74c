"""How long a store may be slow or broken before a person is told, and the one loop that retries."""

import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from resources.object_stores.objects import ObjectStoreError

T = TypeVar("T")

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that a later request may not get. 401, 403 and 404 are answers, not troubles."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Deadlines of requests and retries.

    Attributes:
        connect_s: Until a connection stands.
        silence_s: Until the next byte of an answer.
        slowest_bytes_per_s: A request that moves fewer, after `silence_s` of grace, counts as broken.
        give_up_s: No new try is made this long after a request first failed.
        first_pause_s: Before the second try; doubled for each further one, with jitter.
        longest_pause_s: No pause is longer, whatever the store asks for in Retry-After.
    """

    connect_s: float = 10.0
    silence_s: float = 60.0
    slowest_bytes_per_s: float = 64 * 1024.0
    give_up_s: float = 180.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 20.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"Retries.{name} is {value}; it must be more than 0.")


class Passing(Exception):
    """Something that the next try may not meet: a 503, a reset, a short answer, a silence."""

    def __init__(self, seen: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(seen)
        self.retry_after_s = retry_after_s


class Clock:
    """The time that one request may take for the bytes that it moves."""

    def __init__(self, retries: Retries, size_bytes: int) -> None:
        self._allowed_s = retries.silence_s + size_bytes / retries.slowest_bytes_per_s
        self._started = time.monotonic()

    def check(self) -> None:
        """Raises Passing once the request took too long, however steadily its bytes trickle."""
        if time.monotonic() - self._started > self._allowed_s:
            raise Passing(f"it was still moving after {self._allowed_s:.0f} s")


def retried(attempt: Callable[[], T], *, retries: Retries, doing: str) -> T:
    """Tries until it works or `retries` ends.

    Args:
        attempt: Raises Passing for what may pass; anything else ends the tries.
        doing: The start of the error: "The object store gs://… could not read 'a/b'".

    Raises:
        ObjectStoreError: It still failed when the deadline passed.
    """
    tries, failing_since = 0, 0.0
    while True:
        tries += 1
        try:
            return attempt()
        except Passing as passing:
            now = time.monotonic()
            failing_since = failing_since or now
            pause_s = pause_before(tries, passing, retries)
            if now + pause_s - failing_since > retries.give_up_s:
                raise ObjectStoreError(
                    f"{doing}: {passing}. Tried {tries} times in {now - failing_since:.0f} s. The store is "
                    "down, overloaded or cannot be reached from here: look at its status and at the network, "
                    "then run again; what was sent already is not sent again."
                ) from passing
        time.sleep(pause_s)


def pause_before(tries: int, passing: Passing, retries: Retries) -> float:
    pause_s = retries.first_pause_s * 2 ** min(tries - 1, 30) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
    return min(retries.longest_pause_s, max(pause_s, passing.retry_after_s))


def retry_after_s(header: str | None) -> float:
    """The seconds of a Retry-After header; a date, which the stores here do not send, counts as none."""
    return float(header) if header and header.isdigit() else 0.0


def refused(doing: str, *, status: int, permission: str, credential: str) -> ObjectStoreError:
    """The error for 401 and 403: which credential was asked, and which permission it lacks."""
    if status == 401:
        return ObjectStoreError(
            f"{doing}: HTTP 401, the credentials were not accepted. Look at {credential}."
        )
    return ObjectStoreError(
        f"{doing}: HTTP 403, access is denied. The identity that {credential} gives needs {permission}."
    )


def broken_connection(error: Exception, doing: str) -> Passing | ObjectStoreError:
    """What an HTTP library's error means: mostly something passing; a certificate stays as it is."""
    if untrusted_certificate(error):
        return ObjectStoreError(
            f"{doing}: {error}. Its certificate is not trusted here: set SSL_CERT_FILE (REQUESTS_CA_BUNDLE "
            "and AWS_CA_BUNDLE for the cloud libraries) to your company's certificates."
        )
    return Passing(f"{type(error).__name__}: {error}")


def untrusted_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False

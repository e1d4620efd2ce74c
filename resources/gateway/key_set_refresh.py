"""Keeps the keys of all issuers fresh, and the last good ones where an issuer does not answer."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from resources.gateway.errors import GatewayError
from resources.gateway.jwt_filter import Issuer, KeySet
from resources.gateway.key_sets import fetch_key_set

REFRESH_S = 300
REREAD_S = 1  # a file
RETRY_S = 30
AT_ONCE = 8
WAIT_S = 1
"""What an issuer that takes longer says is taken at a later look: the others do not wait for it."""


@dataclass(kw_only=True)
class KeySetRefresh:
    """`key_sets` is by `Issuer.provider`; it begins with the last good ones of an earlier process."""

    log: Callable[[str], None]
    key_sets: dict[str, KeySet] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))
    _asked: dict[str, "Future[KeySet]"] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _failing: set[str] = field(default_factory=set)

    def look(self, issuers: Iterable[Issuer], now: float) -> None:
        """Asks every issuer that is new or due, and takes what was answered.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        wanted = {issuer.provider: issuer for issuer in issuers}
        for provider in (self.key_sets.keys() | self._due.keys()) - wanted.keys():
            self._forget(provider)
        for provider, issuer in wanted.items():
            if self._due.get(provider, now) <= now and provider not in self._asked:
                self._asked[provider] = self._threads.submit(fetch_key_set, issuer)
        wait(self._asked.values(), timeout=WAIT_S)
        for provider in [each for each, answer in self._asked.items() if answer.done()]:
            answer = self._asked.pop(provider)
            if provider in wanted:
                self._take(wanted[provider], answer, now)

    def close(self) -> None:
        """Asks nobody any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, issuer: Issuer, answer: "Future[KeySet]", now: float) -> None:
        provider = issuer.provider
        try:
            self.key_sets[provider] = answer.result()
        except GatewayError as fault:
            self._due[provider] = now + RETRY_S
            if provider not in self._failing:
                self._failing.add(provider)
                self.log(f"{fault} {self._meanwhile(provider)}")
            return
        in_file = (issuer.key_source or "").startswith("file:")
        self._due[provider] = now + (REREAD_S if in_file else REFRESH_S)
        if provider in self._failing:
            self._failing.remove(provider)
            self.log(f"The keys of the issuer {issuer.name} can be had again.")

    def _meanwhile(self, provider: str) -> str:
        if provider in self.key_sets:
            return "The last keys that it told go on."
        return "Its tokens are refused until then."

    def _forget(self, provider: str) -> None:
        self.key_sets.pop(provider, None)
        self._due.pop(provider, None)
        self._failing.discard(provider)

"""Keeps the keys of all issuers fresh, and the last good ones where an issuer does not answer."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from resources.gateway.errors import GatewayError
from resources.gateway.jwt_filter import Issuer, KeySet
from resources.gateway.key_sets import fetch_key_set

REFRESH_S = 300
REREAD_S = 1  # a file
RETRY_S = 30
AT_ONCE = 8

Log = Callable[[str], None]


@dataclass(kw_only=True)
class KeySetRefresh:
    """`key_sets` is by `Issuer.provider`; it begins with the last good ones of an earlier process."""

    log: Log
    key_sets: dict[str, KeySet] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _failing: set[str] = field(default_factory=set)

    def refresh(self, issuers: Iterable[Issuer], now: float, done: Callable[[], None]) -> None:
        """Asks every issuer that is new or due. `done` is called after each answer: none waits for the rest.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        wanted = {issuer.provider: issuer for issuer in issuers}
        for provider in (self.key_sets.keys() | self._due.keys()) - wanted.keys():
            self._forget(provider)
        due = [each for provider, each in wanted.items() if self._due.get(provider, now) <= now]
        if not due:
            return
        turn = threading.Lock()

        def ask(issuer: Issuer) -> None:
            found = self._asked(issuer)
            with turn:
                self._take(issuer, found, now)
                done()

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in threads.map(ask, due):
                pass

    def _asked(self, issuer: Issuer) -> KeySet | GatewayError:
        try:
            return fetch_key_set(issuer)
        except GatewayError as fault:
            return fault

    def _take(self, issuer: Issuer, found: Mapping | GatewayError, now: float) -> None:
        provider = issuer.provider
        if isinstance(found, GatewayError):
            self._due[provider] = now + RETRY_S
            if provider not in self._failing:
                self._failing.add(provider)
                self.log(f"{found} {self._meanwhile(provider)}")
            return
        if provider in self._failing:
            self._failing.remove(provider)
            self.log(f"The keys of the issuer {issuer.name} can be had again.")
        in_file = (issuer.key_source or "").startswith("file:")
        self._due[provider] = now + (REREAD_S if in_file else REFRESH_S)
        self.key_sets[provider] = found

    def _meanwhile(self, provider: str) -> str:
        if provider in self.key_sets:
            return "The last keys that it told go on."
        return "Its tokens are refused until then."

    def _forget(self, provider: str) -> None:
        self.key_sets.pop(provider, None)
        self._due.pop(provider, None)
        self._failing.discard(provider)

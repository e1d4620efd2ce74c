"""Requests by tenant, model and version for Prometheus, counted from the events that the filter writes down.

Counted by the collector and not by Envoy: its stats loggers, and the metadata that they read, took a tenth of
what a request costs the gateway, and know neither seconds nor help texts. Written in Prometheus's text format
here and not by its client library, which takes 4.8 s for the series of 10,000 tenants; this takes 0.3 s.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from resources.audit.joining import Exchange
from resources.audit.records import latency_ms, outcome_of

UNKNOWN = "-"
"""What a request has no name for: the filter names only tenants and models that exist."""

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""A cached prefix is answered in tens of milliseconds, a long answer takes minutes. Each of them is a series
of every tenant, model and version that was asked."""

WHAT = ("tenant", "model", "version")
HOW = ("outcome", "reason", "status")
_SERVER_ERRORS = 500


class _Histogram:
    """How many took up to each of `SECONDS`, and how long all of them."""

    def __init__(self, labels: str) -> None:
        self._labels, self._counts, self._sum = labels, [0] * (len(SECONDS) + 1), 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        for bound, count in zip((*SECONDS, "+Inf"), counts := [*accumulate(self._counts)], strict=True):
            yield f'{name}_bucket{{{self._labels},le="{bound}"}} {count}\n'
        yield f"{name}_sum{{{self._labels}}} {self._sum!r}\n"
        yield f"{name}_count{{{self._labels}}} {counts[-1]}\n"


class _Version:
    """What one version was asked."""

    def __init__(self, what: tuple[str, ...]) -> None:
        self.labels = _labels(WHAT, what)
        self.prompt_tokens = self.completion_tokens = 0
        self.duration, self.first_byte = _Histogram(self.labels), _Histogram(self.labels)

    def count(self, request: dict[str, object], end: dict[str, object]) -> None:
        self.prompt_tokens += int(_number(end.get("prompt_tokens")) or 0)
        self.completion_tokens += int(_number(end.get("completion_tokens")) or 0)
        if (took := _number(latency_ms(request, end))) is not None:
            self.duration.observe(took / 1000)
        if request.get("stream") and (waited := _number(end.get("first_byte_ms"))) is not None:
            self.first_byte.observe(waited / 1000)


class RequestMetrics:
    """Counts exchanges. A series is there from the first request that has its labels."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ...], int] = {}
        self._versions: dict[tuple[str, ...], _Version] = {}

    def count(self, exchange: Exchange) -> None:
        """One exchange, once. What is no event of a gateway is not counted."""
        request, end = exchange.request, exchange.end
        if request is not None:
            what = _names(request)
            self._count(what, outcome_of(end), end or {})
            if not request.get("version"):  # the gateway answered: no model was asked
                return
            if what not in self._versions:
                self._versions[what] = _Version(what)
            self._versions[what].count(request, end or {})
        elif end is not None and end.get("e") == "denied":
            self._count(_names(end), _outcome_of_refusal(end), end)

    def _count(self, what: tuple[str, ...], outcome: str, end: dict[str, object]) -> None:
        labels = (*what, outcome, str(end.get("reason") or ""), str(end.get("status") or 0))
        self._requests[labels] = self._requests.get(labels, 0) + int(_number(end.get("count")) or 1)

    def text(self) -> str:
        """In Prometheus's text format; may be asked by another thread than the one that counts."""
        names, versions = (*WHAT, *HOW), [*self._versions.values()]
        counted = (
            f"llm_requests_total{{{_labels(names, values)}}} {count}\n"
            for values, count in [*self._requests.items()]
        )
        prompt = (f"llm_prompt_tokens_total{{{each.labels}}} {each.prompt_tokens}\n" for each in versions)
        completion = (
            f"llm_completion_tokens_total{{{each.labels}}} {each.completion_tokens}\n" for each in versions
        )
        took, waited = "llm_request_duration_seconds", "llm_first_byte_seconds"
        return "".join(
            [
                *family("llm_requests_total", "counter", "Requests, refused ones included.", counted),
                *family("llm_prompt_tokens_total", "counter", "Of requests, as vLLM reported them.", prompt),
                *family(
                    "llm_completion_tokens_total", "counter", "Of answers, as vLLM reported them.", completion
                ),
                *family(
                    took,
                    "histogram",
                    "From a request to the end of its answer.",
                    (line for each in versions for line in each.duration.lines(took)),
                ),
                *family(
                    waited,
                    "histogram",
                    "From a request to the first event of its stream.",
                    (line for each in versions for line in each.first_byte.lines(waited)),
                ),
            ]
        )


def family(name: str, kind: str, explained: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines of one metric, with what they are."""
    yield f"# HELP {name} {explained}\n# TYPE {name} {kind}\n"
    yield from lines


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _names(event: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(event.get(name) or UNKNOWN) for name in WHAT)


def _outcome_of_refusal(end: dict[str, object]) -> str:
    """What the platform could not do is its error; all else is the client's."""
    status = end.get("status")
    return "error" if isinstance(status, int) and status >= _SERVER_ERRORS else "denied"


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and value >= 0 else None

"""Did the running Dagster UI load its code locations?

Its webserver and daemon see only what their code servers gave them when they were loaded last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

ANSWER_S = 10
RELOADED = "reload the location (Deployment in the UI), or `llm-assets down` and `up`"
QUERY = """{ workspaceOrError {
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    ... on PythonError { message causes { message } }
  } } }
} }"""


@dataclass(frozen=True, kw_only=True)
class LocationState:
    """What the UI says of one code location of its workspace; `why` names the error of one that failed."""

    name: str
    status: Literal["loading", "loaded", "failed"]
    why: str = ""

    @property
    def fault(self) -> str:
        """A sentence with the error and the remedy; empty unless it failed."""
        if self.status != "failed":
            return ""
        return (
            f"The code location {self.name} did not load: the UI has none of its assets, and no sensor or "
            f"schedule of it runs. {self.why}\nWhen `llm-assets check` finds nothing any more, {RELOADED}."
        )


@dataclass(frozen=True, kw_only=True)
class LoadedLocations:
    """The code locations that a running UI shows."""

    address: str

    def states(self) -> tuple[LocationState, ...] | None:
        """None while nothing answers there."""
        try:
            answer = httpx.post(
                f"{self.address}/graphql", json={"query": QUERY}, timeout=ANSWER_S, trust_env=False
            )
            answer.raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):
            return None
        return tuple(_states(answer.json()["data"]["workspaceOrError"]))

    def faults(self) -> tuple[str, ...]:
        """A sentence for each location that did not load."""
        return tuple(state.fault for state in self.states() or () if state.fault)

    def settled(self) -> bool:
        """Has every location loaded or failed? No while the UI does not answer yet."""
        states = self.states()
        return states is not None and all(state.status != "loading" for state in states)


def _states(workspace: Mapping[str, Any]) -> Iterator[LocationState]:
    if "message" in workspace:
        yield LocationState(name="of the workspace", status="failed", why=_text(workspace["message"]))
    for entry in workspace.get("locationEntries", ()):
        found = entry["locationOrLoadError"] or {}
        if entry["loadStatus"] != "LOADED":
            yield LocationState(name=entry["name"], status="loading")
        elif "message" in found:
            innermost = [found, *found["causes"]][-1]["message"]
            yield LocationState(name=entry["name"], status="failed", why=_text(innermost))
        else:
            yield LocationState(name=entry["name"], status="loaded")


def _text(message: str) -> str:
    """Without the name of the error's class in front, ended as a sentence."""
    first, colon, rest = message.strip().partition(": ")
    text = rest if colon and " " not in first else message.strip()
    return text if text.endswith((".", "\n")) else f"{text}."

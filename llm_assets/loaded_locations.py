"""Did the running Dagster UI load its code locations?

Its webserver and daemon see only what their code servers gave them when they were loaded last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from resources.errors import LlmAssetsError

ANSWER_S = 10
RELOADED = "reload the location (Deployment in the UI), or `llm-assets down` and `up`"
QUERY = """{ workspaceOrError {
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    ... on PythonError { message causes { message } }
  } } }
} }"""


RELOAD_S = 120
RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename ... on UnauthorizedError { message } ... on ReloadNotSupported { message }
  ... on RepositoryLocationNotFound { message }
} }"""


class ReloadError(LlmAssetsError):
    """The UI did not reload a code location."""


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
    """The code locations that a running UI shows to whoever sends it those headers."""

    address: str
    headers: Mapping[str, str]

    def states(self) -> tuple[LocationState, ...] | None:
        """None while nothing answers there."""
        try:
            data = self._ask(QUERY, timeout_s=ANSWER_S)
        except (httpx.TransportError, httpx.HTTPStatusError):
            return None
        return tuple(_states(data["workspaceOrError"]))

    def reload(self) -> None:
        """Every location is read anew by its code server, and with it by webserver and daemon.

        Raises:
            ReloadError: The UI does not answer, or refuses. What does not load is no error: see `faults`.
        """
        try:
            if (states := self.states()) is None:
                raise ReloadError(f"The code location was not reloaded: no UI answers at {self.address}.")
            for state in states:
                data = self._ask(RELOAD, timeout_s=RELOAD_S, name=state.name)
                if message := data["reloadRepositoryLocation"].get("message"):
                    raise ReloadError(f"The code location {state.name} was not reloaded: {message}")
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            raise ReloadError(f"The code location was not reloaded: {error!r} at {self.address}.") from error

    def _ask(self, query: str, *, timeout_s: float, **variables: str) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        address = f"{self.address}/graphql"
        answer = httpx.post(address, json=body, headers=self.headers, timeout=timeout_s, trust_env=False)
        answer.raise_for_status()
        return dict(answer.json()["data"])

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

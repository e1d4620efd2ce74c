"""The gateway seam: it is told where requests go, and says when that counts."""

from collections.abc import Iterable
from typing import Literal, Protocol

from resources.seams.serving import Route

Counting = Literal["counts", "no gateway runs"]
"""Whether what was published counts already. Where no gateway runs, it does once one has started."""


class Gateway(Protocol):
    """Sends the requests of applications to what is live."""

    def publish(self, route: Route) -> Counting:
        """From its return on, no request for that model goes anywhere else, and none to a dead backend.

        What was asked before is answered to its end by whoever was asked.

        Raises:
            GatewayError: A gateway runs and did not take it in time; the text names what was waited for.
                Requests go where they went.
        """

    def withdraw(self, tenant: str, model: str) -> Counting:
        """From its return on its requests are answered 503: nothing is live. Raises as `publish`."""

    def publish_all(self, routes: Iterable[Route]) -> Counting:
        """Publishes these and forgets all others. Raises as `publish`."""

    def address_of(self, tenant: str) -> str | None:
        """What an OpenAI client of that tenant takes as its base URL; None where no gateway runs."""

"""What a read-only token may ask of Dagster's webserver, against the routes that it itself has."""

from typing import Any, cast

from dagster_webserver.webserver import DagsterWebserver
from starlette.routing import Mount, Route, WebSocketRoute

from resources.consoles.gate import Question
from resources.dagster_ui.reading import DagsterReading

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
REPORTS = ("/report_asset_materialization/a", "/report_asset_check/a", "/report_asset_observation/a")


def routes() -> list[Route | Mount | WebSocketRoute]:
    return cast("list[Any]", DagsterWebserver(cast(Any, None)).build_routes())


def allowed(method: str, path: str) -> bool:
    return DagsterReading().refusal(Question(method=method, path=path, query="", body=b"")) is None


def test_nothing_but_graphql_may_be_posted() -> None:
    found = routes()
    paths = {route.path.replace("{asset_key:path}", "a") for route in found}
    assert set(REPORTS) | {"/graphql", "/server_info"} <= paths
    changing = [(method, path) for path in paths for method in METHODS if allowed(method, path)]
    assert {path for method, path in changing if method not in ("GET", "HEAD", "OPTIONS")} == {"/graphql"}


def test_every_route_that_takes_a_post_is_known() -> None:
    posted = {
        route.path for route in routes() if isinstance(route, Route) and "POST" in (route.methods or ())
    }
    assert posted == {"/graphql", *(f"{path[:-1]}{{asset_key:path}}" for path in REPORTS)}


def test_the_one_web_socket_is_graphql() -> None:
    assert [route.path for route in routes() if isinstance(route, WebSocketRoute)] == ["/graphql"]

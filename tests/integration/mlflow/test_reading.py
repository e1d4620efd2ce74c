"""What a read-only token may ask of MLflow, against the routes that MLflow itself has."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.consoles.gate import Question
from resources.mlflow.reading import MlflowReading

ROUTES = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from mlflow.server import constants
os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{sys.argv[1]}/mlflow.db"
os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app

def included(routes, prefix=""):
    for route in routes:
        context = getattr(route, "include_context", None)
        if context is not None:
            yield from included(route.original_router.routes, prefix + getattr(context, "prefix", ""))
        elif getattr(route, "methods", None):
            yield from ((method, prefix + route.path, route.name) for method in route.methods)

found = list(included(app.routes))
for rule in flask.url_map.iter_rules():
    found += [(method, rule.rule, rule.endpoint) for method in rule.methods]
print(json.dumps(found))
"""
# What a read-only token may POST. Each of them was looked at: it searches, and takes its question as a body.
MAY_BE_POSTED = {
    "/graphql",
    *(f"/{api}/2.0/mlflow/{path}" for api in ("api", "ajax-api") for path in (
        "artifacts/presigned-download-url", "experiments/search", "logged-models/search",
        "registered-models/get-latest-versions", "runs/search",
    )),
    *(f"/{api}/3.0/mlflow/{path}" for api in ("api", "ajax-api") for path in (
        "datasets/search", "issues/search", "prompt-optimization/jobs/search", "traces/batchGetInfos",
        "traces/calculate-filter-correlation", "traces/metrics", "traces/search",
    )),
    "/ajax-api/2.0/mlflow/experiments/search-datasets",
    "/ajax-api/3.0/jobs/search",
}  # fmt: skip
NOT_EVEN_READ = ("gateway-proxy", "/assistant/", "/gateway/")


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    folder = tmp_path_factory.mktemp("mlflow")
    done = subprocess.run(
        [sys.executable, "-c", ROUTES, str(folder)], capture_output=True, text=True, check=True, cwd=folder
    )
    return [(method, path, name) for method, path, name in json.loads(done.stdout)]


def allowed(method: str, path: str, body: bytes = b"") -> bool:
    return MlflowReading().refusal(Question(method=method, path=path, query="", body=body)) is None


def test_all_of_its_routes_are_seen(routes: list[tuple[str, str, str]]) -> None:
    assert len(routes) > 500
    for path in ("/api/2.0/mlflow/runs/create", "/ajax-api/3.0/mlflow/assistant/config", "/v1/traces"):
        assert any(path == route for _, route, _ in routes), path


def test_only_what_searches_may_be_posted(routes: list[tuple[str, str, str]]) -> None:
    changing = [(m, path) for m, path, _ in routes if m not in ("GET", "HEAD", "OPTIONS")]
    assert {path for method, path in changing if allowed(method, path)} == MAY_BE_POSTED
    assert {method for method, path in changing if allowed(method, path)} == {"POST"}


def test_every_get_reads_but_what_asks_others(routes: list[tuple[str, str, str]]) -> None:
    refused = {path for method, path, _ in routes if method == "GET" and not allowed(method, path)}
    assert refused
    assert all(any(part in path for part in NOT_EVEN_READ) for path in refused), refused
    changes = ("create", "delete", "update", "set_", "log_", "upload", "register", "invoke", "submit")
    reached = {name for method, path, name in routes if method == "GET" and allowed(method, path)}
    assert [name for name in sorted(reached) if any(name.lstrip("_").startswith(c) for c in changes)] == []


def written(path: str) -> Iterator[str]:
    """Other spellings of a path, none of which is a route that is allowed."""
    yield from (f"/{path}", f"{path}/", path.upper(), path.replace("/mlflow", "//mlflow"), f"{path}\n")


@pytest.mark.parametrize("path", ["/api/2.0/mlflow/runs/search", "/api/2.0/mlflow/experiments/search"])
def test_another_spelling_is_not_allowed(path: str) -> None:
    assert allowed("POST", path)
    for spelling in written(path):
        assert not allowed("POST", spelling), spelling


def test_the_locked_page_still_has_the_settings_that_are_set_in_the_browser() -> None:
    import mlflow.server

    from resources.mlflow.pages import BROWSER_SETTINGS

    folder = Path(mlflow.server.__file__).with_name("js") / "build" / "static" / "js"
    scripts = "".join(file.read_text(errors="replace") for file in folder.glob("*.js"))
    for name in BROWSER_SETTINGS:
        assert name.removesuffix("_v1") in scripts, name
    assert "data-assistant-ui" in scripts

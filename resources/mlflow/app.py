"""The MLflow server as one process: what `mlflow server --workers 1` comes down to.

`mlflow server` is itself only a supervisor: it opens the database once to check it, sets variables for
its worker, starts uvicorn as a second process that opens everything again, and (by default) eight
more for background jobs that a registry has no use for. Run in one process it is ready in half the
time and a quarter of the memory. Names of variables and functions come from MLflow itself, so that a
renamed one fails at start instead of quietly opening another database.

Run by `resources/mlflow/server.py`. It listens on a unix socket, behind its console's gate and Envoy. Does
not cover: more than one worker, Windows.
"""

import argparse
import os
from pathlib import Path

from resources.consoles.consoles import Console
from resources.consoles.front import envoy_before
from resources.consoles.serving import serve
from resources.mlflow.pages import Pages
from resources.mlflow.reading import MlflowReading
from resources.mlflow.server import NAME, TITLE


def main() -> None:
    options = _options()
    console = Console(
        name=NAME, title=TITLE, port=options.port, folder=options.console, tokens=options.tokens
    )
    with envoy_before(console):
        serve(_application(options), console, MlflowReading())


def _application(options: argparse.Namespace) -> Pages:
    from mlflow.server import app as flask_app
    from mlflow.server import constants, handlers

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = options.backend_store_uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = options.backend_store_uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = options.artifacts_destination
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    handlers.initialize_backend_stores(
        options.backend_store_uri, options.backend_store_uri, "mlflow-artifacts:/"
    )
    from mlflow.server.fastapi_app import app  # reads the variables above

    assert flask_app.static_folder is not None
    return Pages(app, Path(flask_app.static_folder, "index.html"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="MLflow's tracking server and registry, for this machine only."
    )
    parser.add_argument("--backend-store-uri", required=True)
    parser.add_argument("--artifacts-destination", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--console", type=Path, required=True, help="the folder of its socket")
    parser.add_argument("--tokens", type=Path, required=True, help="the folder of the consoles' tokens")
    return parser.parse_args()


if __name__ == "__main__":
    main()

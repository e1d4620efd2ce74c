"""How the registry talks to an MLflow server: the client, its patience, its one error.

MLflow is imported here and nowhere else, inside functions: the import takes 1.5 to 4 s. No address is
ever set globally (`mlflow.set_tracking_uri`); every client carries its own. What MLflow offers only as
environment variables (time limits, retries, telemetry, chatter) is set where the operator has not set it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from resources.errors import LlmAssetsError
from resources.mlflow.token_header import sent_token

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # MLflow's own defaults try an absent server for more than four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}


class RegistryError(LlmAssetsError):
    """MLflow does not answer, refuses, or does not hold what was asked for."""


def warm() -> threading.Thread:
    """Starts importing MLflow in the background and returns at once."""
    thread = threading.Thread(target=_import_mlflow, name="import mlflow")
    thread.start()
    return thread


@contextmanager
def mlflow_client(tracking_uri: str, doing: str, *, token_file: Path | None) -> Iterator["MlflowClient"]:
    """A client of the server at `tracking_uri`; whatever MLflow raises becomes a `RegistryError`.

    `doing` completes the sentence "… failed while `doing`". `token_file` holds what opens the server; None
    for one that the operator's own MLFLOW_TRACKING_… variables open.
    """
    refuse_credentials(tracking_uri)
    _import_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException, RestException

    try:
        with sent_token(_token(token_file)):
            yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except RestException as error:
        raise RegistryError(f"MLflow at {tracking_uri} refused while {doing}: {error.message}") from error
    except MlflowException as error:
        raise RegistryError(
            f"MLflow at {tracking_uri} did not answer while {doing}. Start it (`llm-assets up` does), or "
            f"set LLM_ASSETS_MLFLOW_URL to a server that runs. It said: {error.message}"
        ) from error


def refuse_credentials(tracking_uri: str) -> None:
    """An address stands in errors, logs and metadata, so it may hold no user and no password.

    Raises:
        RegistryError: It does; the text does not repeat them.
    """
    if "@" in urlsplit(tracking_uri).netloc:
        raise RegistryError(
            f"The address of MLflow at {urlsplit(tracking_uri).hostname} holds a user or a password. Leave "
            "them out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def _token(file: Path | None) -> str | None:
    """None before the server was ever started; then nothing answers either."""
    try:
        return file.read_text().strip() if file else None
    except FileNotFoundError:
        return None


def _import_mlflow() -> None:
    for variable, value in DEFAULTS.items():
        os.environ.setdefault(variable, value)
    import mlflow  # noqa: F401

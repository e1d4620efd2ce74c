"""The embedded default: the resources of a laptop, all of them below one state folder."""

from pathlib import Path
from typing import Any

import llm_assets
from llm_assets.settings import Settings
from llm_assets.stack import Stack
from resources.artifact_store.store import ArtifactStore
from resources.compute import LocalCompute
from resources.mlflow.registry import MlflowRegistry
from resources.mlflow.server import MlflowServer
from resources.serving.local import LocalServing

PACKAGE = str(Path(llm_assets.__file__).parent)


def embedded_resources(settings: Settings) -> dict[str, Any]:
    """By resource key: what the assets and sensors ask for."""
    return {
        "settings": settings,
        "artifact_store": embedded_store(settings),
        "compute": embedded_compute(settings),
        "mlflow_server": embedded_mlflow(settings),
        "registry": embedded_registry(settings),
        "serving": embedded_serving(settings),
    }


def embedded_compute(settings: Settings) -> LocalCompute:
    return LocalCompute(
        engines=str(settings.engines),
        package=PACKAGE,
        memory_bytes=settings.order_memory_bytes,
        processes=settings.order_processes,
        seconds=settings.order_seconds,
    )


def embedded_store(settings: Settings) -> ArtifactStore:
    return ArtifactStore(
        url=settings.store_url,
        cache=None if settings.reads_in_place else str(settings.artifact_cache),
        cache_limit_bytes=settings.artifact_cache_bytes,
        signing_keys=str(settings.keys),
        signer=settings.signer,
    )


def embedded_mlflow(settings: Settings) -> MlflowServer:
    return MlflowServer(home=settings.home, port=settings.mlflow_port, tokens=settings.console_tokens)


def embedded_registry(settings: Settings) -> MlflowRegistry:
    server = embedded_mlflow(settings)
    return MlflowRegistry(
        tracking_uri=server.url,
        locks=str(settings.locks),
        token_file=str(server.console.token_file("full")),
        promotions=str(settings.promotions),
        signing_keys=str(settings.keys),
    )


def embedded_serving(settings: Settings) -> LocalServing:
    return LocalServing(home=str(settings.home), engines=str(settings.engines), gateway=True)


def embedded_stack(settings: Settings) -> Stack:
    return Stack(
        settings=settings,
        store=embedded_store(settings),
        mlflow=embedded_mlflow(settings),
        serving=embedded_serving(settings),
    )

"""The profile of an installation: what fills each seam. Built here alone, once, from the settings.

Assets, sensors, the gateway's processes and the command line take what they need from a `Profile` and never
ask which one it is. There is one: `local`, for one machine, all of it below the state folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llm_assets
from llm_assets.installation.settings import Settings
from resources.artifact_store.store import ArtifactStore
from resources.local.compute import LocalCompute
from resources.local.gateway import LocalGateway
from resources.local.serving.local_serving import LocalServing
from resources.local.state import LocalState
from resources.mlflow.registry import MlflowRegistry
from resources.mlflow.server import ExistingMlflow, Mlflow, MlflowServer
from resources.postgresql.state import PostgresState
from resources.seams.compute import Compute
from resources.seams.gateway import Gateway
from resources.seams.serving import ModelServing
from resources.seams.state import State

PACKAGE = str(Path(llm_assets.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The settings of an installation, and what fills its seams."""

    settings: Settings
    store: ArtifactStore
    compute: Compute
    serving: ModelServing
    gateway: Gateway
    mlflow: Mlflow
    registry: MlflowRegistry
    state: State

    def resources(self) -> dict[str, Any]:
        """By resource key: what the assets and sensors ask for."""
        return {
            "settings": self.settings,
            "artifact_store": self.store,
            "compute": self.compute,
            "mlflow_server": self.mlflow,
            "registry": self.registry,
            "serving": self.serving,
            "state": self.state,
            "gateway": self.gateway,
        }


def profile_of(settings: Settings) -> Profile:
    """Everything an installation consists of; builds values only, starts nothing."""
    mlflow = _mlflow(settings)
    url = settings.database_url
    state: State = PostgresState(url=url) if url else LocalState(folder=settings.locks)
    store = ArtifactStore(
        url=settings.store_url,
        cache=None if settings.reads_in_place else str(settings.artifact_cache),
        cache_limit_bytes=settings.artifact_cache_bytes,
        signing_keys=str(settings.keys),
        signer=settings.signer,
    )
    return Profile(
        settings=settings,
        store=store,
        compute=LocalCompute(
            store=store,
            work=str(settings.work),
            engines=str(settings.engines),
            package=PACKAGE,
            memory_bytes=settings.order_memory_bytes,
            processes=settings.order_processes,
            seconds=settings.order_seconds,
        ),
        serving=LocalServing(home=settings.home, engines=settings.engines, store=store),
        gateway=LocalGateway(home=settings.home),
        mlflow=mlflow,
        state=state,
        registry=MlflowRegistry(
            tracking_uri=mlflow.url,
            state=state,
            token_file=str(mlflow.token_file) if mlflow.token_file else None,
            promotions=str(settings.promotions),
            signing_keys=str(settings.keys),
        ),
    )


def _mlflow(settings: Settings) -> Mlflow:
    if settings.mlflow_url:
        return ExistingMlflow(url=settings.mlflow_url, token_file=settings.mlflow_token_file)
    return MlflowServer(home=settings.home, port=settings.mlflow_port, tokens=settings.console_tokens)

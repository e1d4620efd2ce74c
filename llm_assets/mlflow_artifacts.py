"""MLflow's way to the files of a registered version.

`mlflow.artifacts.download_artifacts("models:/team-a.support_bot@production")` finds the source
`artifact://models/<tenant>/<model>/<version>`, a scheme that MLflow does not know; this is its plugin (entry
point `mlflow.artifact_repository`). Whoever downloads reads the artifact store itself, with his own rights in
it, and every file is compared with the manifest. MLflow's server loads the plugin too and gives out nothing.
Loaded by MLflow alone, so MLflow is imported here; all else only when something is asked for.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

if TYPE_CHECKING:
    from resources.artifact_store.artifacts import Artifact
    from resources.object_stores.objects import ObjectStore

STORE_SETTING = "LLM_ASSETS_STORE"
OF_A_SERVER = "_MLFLOW_SERVER_FILE_STORE"
"""MLflow's `BACKEND_STORE_URI_ENV_VAR`, set in servers alone; its module would load the whole server."""


class ArtifactStoreRepository(ArtifactRepository):
    """The files of one artifact, read only."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What lies directly below `path`; nothing where that is a file."""
        start = f"{path.strip('/')}/" if path else ""
        below = [file for file in self._artifact.files if file.path.startswith(start) and file.path != path]
        folders = {
            start + rest.partition("/")[0] for file in below if "/" in (rest := file.path[len(start) :])
        }
        files = [file for file in below if "/" not in file.path[len(start) :]]
        listed = [FileInfo(file.path, False, file.size_bytes) for file in files]
        return sorted(
            [*listed, *(FileInfo(each, True, None) for each in folders)], key=lambda info: info.path
        )

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Raises:
        MlflowException: The artifact has no such file, or its bytes are not those that were published.
        """
        from resources.artifact_store.artifacts import ArtifactError
        from resources.object_stores.objects import ObjectStoreError

        target = Path(local_path)
        target.unlink(missing_ok=True)  # what an earlier try left would be taken for the file's beginning
        try:
            file = self._artifact.file(remote_file_path)
            sha256 = self._objects.download(
                f"{self._artifact.key}/{file.path}", target, lambda _bytes: None
            ).sha256
        except (ArtifactError, ObjectStoreError) as fault:
            raise MlflowException(str(fault)) from fault
        if sha256 != file.sha256 or target.stat().st_size != file.size_bytes:
            target.unlink()
            raise MlflowException(
                f"{self.artifact_uri}: the bytes of {file.path} are not those that were published. "
                "`llm-assets verify` says what else of it is damaged."
            )

    @cached_property
    def _artifact(self) -> "Artifact":
        from resources.artifact_store.artifacts import ArtifactError
        from resources.artifact_store.manifests import published

        try:
            return published(self._objects, self.artifact_uri)
        except ArtifactError as fault:
            raise MlflowException(str(fault)) from fault

    @cached_property
    def _objects(self) -> "ObjectStore":
        from resources.object_stores.opening import open_object_store

        return open_object_store(_store_url())

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> NoReturn:
        raise _read_only(self.artifact_uri)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> NoReturn:
        raise _read_only(self.artifact_uri)


def _read_only(uri: str) -> MlflowException:
    return MlflowException(f"{uri} never changes. Versions are published by `llm-assets run`.")


def _store_url() -> str:
    """Raises:
    MlflowException: This is MLflow's server, or no installation's store can be found from here.
    """
    from llm_assets.installation.files import SettingsError
    from llm_assets.installation.settings import find_settings

    if OF_A_SERVER in os.environ:
        raise MlflowException(
            "MLflow's server gives out no files of the artifact store: they are read from the store itself, "
            "with the reader's own rights. Use mlflow.artifacts.download_artifacts instead."
        )
    if url := os.environ.get(STORE_SETTING):
        return url
    try:
        return find_settings().store_url
    except SettingsError as fault:
        raise MlflowException(
            f"{fault} Or set {STORE_SETTING} to the address of the artifact store (gs://…, s3://…)."
        ) from fault

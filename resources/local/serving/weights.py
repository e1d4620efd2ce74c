"""Weights on their way to a server: staged and held by the node's cache, or streamed from the bucket."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.artifacts import Artifact, ArtifactError
from resources.artifact_store.store import ArtifactStore
from resources.object_stores.objects import ObjectStoreError
from resources.seams.serving import Log, Serving, ServingError
from resources.vllm.program import Weights
from resources.vllm.streamed_weights import StreamedModel
from resources.vllm.streaming import DISK, STREAMED_SCHEMES


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Where a server loads its weights from. A shared lock on `leases` keeps what is on the disk there."""

    weights: Weights
    leases: tuple[Path, ...]


@contextmanager
def staged(serving: Serving, store: ArtifactStore, log: Log) -> Iterator[Staged]:
    """The weights of a serving, every byte verified, on this machine's disk while the block runs.

    Those that are streamed are not fetched; `streamed_model` verifies them.

    Raises:
        ServingError: Something of it is gone, damaged, or not what was registered.
    """
    with ExitStack() as held:
        with _named(serving):
            found = _staged(serving, store, held, log)
        yield found


def _staged(serving: Serving, store: ArtifactStore, held: ExitStack, log: Log) -> Staged:
    leases = []

    def on_disk(uri: str, digest: str) -> str:
        held_here = held.enter_context(store.hold(_published(store, uri, digest), log))
        leases.append(held_here.lease)
        return str(held_here.folder)

    if serving.weights == "stream":
        model = _address(store, _published(store, serving.model_uri, serving.model_digest))
    else:
        model = on_disk(serving.model_uri, serving.model_digest)
    adapter = None
    if serving.adapter_uri and serving.adapter_digest:
        adapter = on_disk(serving.adapter_uri, serving.adapter_digest)
    return Staged(weights=Weights(model=model, adapter=adapter), leases=tuple(leases))


@contextmanager
def _named(serving: Serving) -> Iterator[None]:
    try:
        yield
    except (ArtifactError, ObjectStoreError) as fault:
        raise ServingError(f"{serving.name} version {serving.version} cannot be served: {fault}") from fault


def streamed_model(serving: Serving, store: ArtifactStore, seal: Path) -> StreamedModel | None:
    """What a server streams, None where it loads from the disk. `seal` remembers what was verified."""
    if serving.weights == "disk":
        return None
    with _named(serving):
        uri = _address(store, _published(store, serving.model_uri, serving.model_digest))
    return StreamedModel(uri=uri, digest=serving.model_digest, seal=seal)


def _published(store: ArtifactStore, uri: str, digest: str) -> Artifact:
    found = store.get(uri)
    if found.digest != digest:
        raise ArtifactError(f"{uri} has the digest {found.digest}, promoted was {digest}.")
    return found


def _address(store: ArtifactStore, artifact: Artifact) -> str:
    url = store.object_url(artifact)
    if not url.startswith(STREAMED_SCHEMES):
        raise ArtifactError(f"vLLM streams from {' and '.join(STREAMED_SCHEMES)}, not from {url}; set {DISK}")
    return url

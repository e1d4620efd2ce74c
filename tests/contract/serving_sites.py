"""Where the serving seam is filled, for its contract tests: what each implementation has to bring along."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.artifact_store.store import ArtifactStore
from resources.local.serving.local_serving import LocalServing
from resources.seams.serving import Backend, ModelServing, Serving
from tests.integration.serving.conftest import MODEL, QUESTION, MakeServing, engine_in, known_answer, stop_all


@dataclass(frozen=True, kw_only=True)
class Site:
    """An implementation, a way to make versions for it, and one to ask a backend past any gateway.

    Attributes:
        version: Makes the serving of a version by its label, which is whole.
        wrong: As `version`, of one whose server answers otherwise than its known answers say.
        digest_of: What a backend says that it serves; raises where it is gone.
    """

    serving: ModelServing
    version: Callable[[str], Serving]
    wrong: Callable[[str], Serving]
    digest_of: Callable[[Backend], str]


@contextmanager
def local_site(folder: Path, store: ArtifactStore, make_serving: MakeServing) -> Iterator[Site]:
    """Processes of this machine, with the stand-in for vLLM."""
    serving = LocalServing(home=folder / "home", engines=engine_in(folder / "engines"), store=store)

    def digest_of(backend: Backend) -> str:
        server = serving.servers.processes.find(backend.id)
        assert server is not None
        with serving.servers.client(server) as client:
            return str(client.chat(MODEL, [{"role": "user", "content": QUESTION}])["system_fingerprint"])

    yield Site(
        serving=serving,
        version=make_serving,
        wrong=lambda label: make_serving(label, known_answers=(known_answer(f"not {label}"),)),
        digest_of=digest_of,
    )
    stop_all(serving)

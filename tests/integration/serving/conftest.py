"""What the serving tests share: small servings, and an engine folder whose `vllm` is the stand-in."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.artifact_store.artifacts import Line
from resources.artifact_store.store import ArtifactStore
from resources.local.serving.local_serving import LocalServing
from resources.processes.local_processes import ProcessRecord
from resources.seams.serving import Log, Route, Serving

STAND_IN = Path(__file__).parent / "stand_in_vllm.py"
TENANT, MODEL = "team-a", "support_bot"
QUESTION = "Who are you?"
LOGPROB = -0.25

MakeServing = Callable[..., Serving]


def known_answer(text: str, **replaced: Any) -> dict[str, Any]:
    tokens = [{"id": ord(letter), "logprob": LOGPROB, "margin": 3.0} for letter in text]
    known = {
        "question": QUESTION,
        "text": text,
        "prompt_token_ids": list(QUESTION.encode()),
        "tokens": tokens,
    }
    return {**known, **replaced}


def quiet(line: str) -> None:
    """A log that nobody reads."""


def untold(route: Route) -> None:
    """For deploys that no gateway is told of."""


def deploy(
    serving: LocalServing,
    wanted: Serving | tuple[Serving, ...],
    *,
    publish: Callable[[Route], object] = untold,
    log: Log = quiet,
) -> Route:
    servings = (wanted,) if isinstance(wanted, Serving) else wanted
    return serving.deploy(servings, publish=publish, log=log)


def stop_all(serving: LocalServing) -> None:
    for route in serving.routes():
        serving.stop(route.tenant, route.model)


def server_of(serving: LocalServing, version: str | None = None, tenant: str = TENANT) -> ProcessRecord:
    """The live server of a version, of production if left out."""
    route = serving.route(tenant, MODEL)
    (backend,) = [each for each in route.backends if each.version == (version or route.production.version)]
    server = serving.servers.processes.find(backend.id)
    assert server is not None
    return server


def answer(serving: LocalServing, version: str | None = None, tenant: str = TENANT) -> dict[str, Any]:
    """What that server answers, asked past any gateway."""
    with serving.servers.client(server_of(serving, version, tenant)) as client:
        return client.chat(MODEL, [{"role": "user", "content": QUESTION}])


def ask(serving: LocalServing, version: str | None = None, tenant: str = TENANT) -> str:
    return str(answer(serving, version, tenant)["choices"][0]["message"]["content"])


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path / 'store'}")


@pytest.fixture
def make_serving(store: ArtifactStore, tmp_path: Path) -> MakeServing:
    """Makes servings whose stand-in answers with the version's name; `behaviour` changes that."""
    published: dict[str, tuple[str, str]] = {}

    def artifact(behaviour: str) -> tuple[str, str]:
        if behaviour not in published:
            folder = tmp_path / "made"
            folder.mkdir()
            (folder / "behaviour.json").write_text(behaviour)
            made = store.publish(Line(collection="models", tenant=TENANT, name=MODEL), folder, {})
            published[behaviour] = (made.uri, made.digest)
        return published[behaviour]

    def make(version: str = "v1", *, behaviour: dict[str, Any] | None = None, **settings: Any) -> Serving:
        answers = {"answer": [ord(letter) for letter in version], "logprob": LOGPROB, **(behaviour or {})}
        uri, digest = artifact(json.dumps(answers))
        values: dict[str, Any] = {
            "tenant": TENANT,
            "model": MODEL,
            "version": version,
            "digest": f"sha256:{version}",
            "mode": "merged",
            "model_uri": uri,
            "model_digest": digest,
            "max_model_len": 512,
            "max_num_seqs": 4,
            "kv_cache_mib": 64,
            "dtype": "bfloat16",
            "known_answers": (known_answer(version),),
            "engine": "lock",
            "device": "cpu",
        }
        return Serving(**{**values, **settings})

    return make


def engine_in(engines: Path) -> Path:
    """A folder of engines whose `vllm` is the stand-in."""
    executable = engines / "serve" / "bin" / "vllm"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text()}")
    executable.chmod(0o755)
    return engines


@pytest.fixture
def local_serving(tmp_path: Path, store: ArtifactStore) -> Iterator[LocalServing]:
    engines = engine_in(tmp_path / "engines")
    serving = LocalServing(home=tmp_path / "home", engines=engines, store=store)
    yield serving
    stop_all(serving)

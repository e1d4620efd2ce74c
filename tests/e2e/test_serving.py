"""Deploys of real models by the real vLLM: merged, as an adapter over its base, streamed.

Few tests, because every start of vLLM takes 20 s and more.
"""

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resources.artifact_store.artifacts import Artifact, Line
from resources.artifact_store.store import ArtifactStore
from resources.local.serving.local_serving import LocalServing
from resources.seams.serving import Serving, ServingError
from resources.waiting import wait_until
from tests.buckets import Bucket, gcs_bucket, s3_bucket
from tests.e2e.adapted_models import NAMES, RANK
from tests.integration.serving.conftest import MODEL, TENANT, answer, deploy, stop_all
from tests.servers.s3 import SECRET

pytestmark = pytest.mark.engine

TOO_LONG = 131_072  # of the tiny model in a cache of 16 MiB


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(url=f"file:{tmp_path / 'store'}")


@pytest.fixture
def serving(engines: Path, tmp_path: Path, store: ArtifactStore) -> Iterator[LocalServing]:
    serving = LocalServing(home=tmp_path / "home", engines=engines, store=store)
    yield serving
    stop_all(serving)


def published(store: ArtifactStore, folder: Path, *more: Path) -> Artifact:
    with tempfile.TemporaryDirectory() as made:
        shutil.copytree(folder, Path(made) / "copy")
        for file in more:
            shutil.copy(file, Path(made) / "copy")
        line = Line(collection="models", tenant=TENANT, name=MODEL)
        return store.publish(line, Path(made) / "copy", {})


def merged(
    store: ArtifactStore, adapted: Path, name: str, *, weights: Path | None = None, **settings: Any
) -> Serving:
    """That model with its known answers, by the weights in its folder or in another."""
    model = published(store, weights or adapted / name / "merged")
    values: dict[str, Any] = {
        "tenant": TENANT,
        "model": MODEL,
        "version": name,
        "digest": f"sha256:{name}",
        "mode": "merged",
        "model_uri": model.uri,
        "model_digest": model.digest,
        "max_model_len": 512,
        "max_num_seqs": 4,
        "kv_cache_mib": 64,
        "dtype": "bfloat16",
        "known_answers": tuple(json.loads((adapted / name / "answers.json").read_text())),
        "engine": "lock",
        "device": "cpu",
    }
    return Serving(**{**values, **settings})


def over_base(
    store: ArtifactStore, adapted: Path, base: Path, name: str, *, adapter: str | None = None
) -> Serving:
    template = adapted / name / "merged" / "chat_template.jinja"
    made = published(store, adapted / (adapter or name) / "adapter", template)
    own = {"adapter_uri": made.uri, "adapter_digest": made.digest, "lora_rank": RANK}
    return merged(store, adapted, name, weights=base, mode="adapter", **own)


def test_a_model_goes_live_merged_and_as_an_adapter_and_never_as_another(
    serving: LocalServing, adapted: Path, tiny_model: Path
) -> None:
    (one, two), store = NAMES, serving.store
    _goes_live_once(serving, merged(store, adapted, one))
    _answers_as_before(serving, merged(store, adapted, one, weights=adapted / one / "exported", **EXPORTED))
    _is_named_when_it_dies(serving)
    route = deploy(serving, over_base(store, adapted, tiny_model, two), log=print)
    assert answer(serving)["system_fingerprint"] == route.production.digest
    wrong = over_base(store, adapted, tiny_model, one, adapter=two)
    with pytest.raises(
        ServingError, match=rf"does not answer as version {one}(.|\n)*Version {two} goes on serving"
    ):
        deploy(serving, wrong, log=print)
    assert serving.state(TENANT, MODEL).version == two
    (server,) = serving.servers.processes.all()
    serving.stop(TENANT, MODEL)
    assert not server.temporary_folder.exists()
    assert serving.state(TENANT, MODEL).status == "stopped"


@pytest.mark.long
def test_a_kv_cache_that_holds_no_whole_request_is_told_with_the_length_that_it_holds(
    serving: LocalServing, adapted: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Before a training `check` tells it of a fetched base; here a version is served with other settings."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2 * TOO_LONG}))
    wanted = replace(
        merged(serving.store, adapted, NAMES[0], weights=model),
        version="long",
        max_model_len=TOO_LONG,
        kv_cache_mib=16,
    )
    remedy = r"Lower serving\.max_model_len of the model to at most (\d+), or \(without a GPU\) raise its"
    with pytest.raises(ServingError, match=rf"it died: (.|\n)*KV cache is needed(.|\n)*{remedy}") as told:
        deploy(serving, wanted, log=print)
    assert "gpu_memory_utilization" not in str(told.value)
    found = re.search(remedy, str(told.value))
    assert found is not None
    assert 0 < int(found[1]) < TOO_LONG


EXPORTED = {"version": "exported", "digest": "sha256:exported"}


def _goes_live_once(serving: LocalServing, wanted: Serving) -> None:
    route = deploy(serving, wanted, log=print)
    assert answer(serving)["system_fingerprint"] == wanted.digest
    started = time.monotonic()
    assert deploy(serving, wanted, log=print) == route
    assert time.monotonic() - started < 5


def _answers_as_before(serving: LocalServing, exported: Serving) -> None:
    """LLaMA-Factory's export goes live as the model whose known answers are those of the streamed merge.

    Texts are not compared: last bits differ (one rounds at random), and what a random model says after a tie.
    """
    deploy(serving, exported, log=print)
    assert answer(serving)["system_fingerprint"] == exported.digest


def _is_named_when_it_dies(serving: LocalServing) -> None:
    (server,) = serving.servers.processes.all()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not serving.servers.processes.alive(server), what="the kill", timeout_s=30)
    state = serving.state(TENANT, MODEL)
    assert state.status == "dead"
    assert f"(pid {server.pid}) died" in (state.why or "")


@pytest.fixture(params=["s3", "gs"])
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    with s3_bucket() if request.param == "s3" else gcs_bucket(tmp_path / "gcs") as bucket:
        for variable, value in bucket.environment.items():
            monkeypatch.setenv(variable, value)
        yield bucket


def test_weights_are_streamed_from_the_bucket_and_never_touch_the_disk(
    serving: LocalServing, adapted: Path, bucket: Bucket, tmp_path: Path
) -> None:
    store = bucket.store("store")
    serving = replace(serving, store=store)
    wanted = merged(store, adapted, NAMES[0], weights=adapted / NAMES[0] / "merged")
    wanted = replace(wanted, weights="stream", digest=wanted.model_digest)
    deploy(serving, wanted, log=print)  # proven by its known answers
    assert answer(serving)["system_fingerprint"] == wanted.digest
    (server,) = serving.servers.processes.all()
    assert "Run" in server.log.read_text()
    assert SECRET not in " ".join(server.command)
    assert not [path for path in serving.home.rglob("*") if path.suffix == ".safetensors"]
    uri = store.object_url(store.get(wanted.model_uri))
    bucket.put(f"{uri}/config.json", b"{}", tmp_path)
    serving.stop(TENANT, MODEL)
    with pytest.raises(ServingError, match=r"the bytes of config\.json are not those(.|\n)*Nothing is live"):
        deploy(serving, wanted, log=print)

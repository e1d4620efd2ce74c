"""Deploys of real models by the real vLLM: merged, as an adapter over its base, streamed.

Few tests, because every start of vLLM takes 20 s and more.
"""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.serving.local import LocalServing, Serving, VllmError
from resources.waiting import wait_until
from tests.buckets import Bucket, gcs_bucket, s3_bucket
from tests.e2e.adapted_models import NAMES, QUESTIONS, RANK
from tests.servers.s3 import SECRET

pytestmark = pytest.mark.engine

TENANT, MODEL = "team-a", "support_bot"
TOO_LONG = 131_072  # of the tiny model in a cache of 16 MiB


@pytest.fixture
def serving(engines: Path, tmp_path: Path) -> Iterator[LocalServing]:
    serving = LocalServing(home=str(tmp_path / "home"), engines=str(engines))
    yield serving
    serving.stop_all()


def merged(adapted: Path, name: str, **settings: Any) -> Serving:
    values: dict[str, Any] = {
        "tenant": TENANT,
        "model": MODEL,
        "version": name,
        "digest": f"sha256:{name}",
        "mode": "merged",
        "model_folder": adapted / name / "merged",
        "max_model_len": 512,
        "max_num_seqs": 4,
        "kv_cache_mib": 64,
        "dtype": "bfloat16",
        "known_answers": tuple(json.loads((adapted / name / "answers.json").read_text())),
        "engine": "lock",
        "device": "cpu",
    }
    return Serving(**{**values, **settings})


def over_base(adapted: Path, base: Path, name: str, **settings: Any) -> Serving:
    template = adapted / name / "merged" / "chat_template.jinja"
    adapter = {"adapter_folder": adapted / name / "adapter", "lora_rank": RANK, "chat_template": template}
    return merged(adapted, name, **{"mode": "adapter", "model_folder": base, **adapter, **settings})


def test_a_model_goes_live_merged_and_as_an_adapter_and_never_as_another(
    serving: LocalServing, adapted: Path, tiny_model: Path
) -> None:
    one, two = NAMES
    _goes_live_once(serving, merged(adapted, one))
    _answers_as_before(serving, merged(adapted, one, model_folder=adapted / one / "exported", **EXPORTED))
    _is_named_when_it_dies(serving)
    route = serving.deploy(over_base(adapted, tiny_model, two), print)
    assert serving.served_digest(TENANT, MODEL) == route.production.digest
    wrong = over_base(adapted, tiny_model, one, adapter_folder=adapted / two / "adapter")
    with pytest.raises(
        VllmError, match=rf"does not answer as version {one}(.|\n)*Version {two} goes on serving"
    ):
        serving.deploy(wrong, print)
    assert serving.state(TENANT, MODEL).version == two
    (server,) = serving.servers.processes.all()
    serving.stop(TENANT, MODEL)
    assert not server.temporary_folder.exists()
    assert serving.state(TENANT, MODEL).status == "stopped"


@pytest.mark.long
def test_a_kv_cache_that_holds_no_whole_request_is_told_with_the_length_that_it_holds(
    serving: LocalServing, tiny_model: Path, tmp_path: Path
) -> None:
    """Before a training `check` tells it of a fetched base; here a version is served with other settings."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2 * TOO_LONG}))
    wanted = Serving(
        tenant=TENANT,
        model=MODEL,
        version="long",
        digest="sha256:long",
        mode="merged",
        model_folder=model,
        max_model_len=TOO_LONG,
        max_num_seqs=4,
        kv_cache_mib=16,
        dtype="bfloat16",
        known_answers=({"question": "Who are you?", "tokens": [1]},),
        engine="lock",
        device="cpu",
    )
    remedy = r"Lower serving\.max_model_len of the model to at most (\d+), or \(without a GPU\) raise its"
    with pytest.raises(VllmError, match=rf"it died: (.|\n)*KV cache is needed(.|\n)*{remedy}") as told:
        serving.deploy(wanted, print)
    assert "gpu_memory_utilization" not in str(told.value)
    found = re.search(remedy, str(told.value))
    assert found is not None
    assert 0 < int(found[1]) < TOO_LONG


EXPORTED = {"version": "exported", "digest": "sha256:exported"}


def _goes_live_once(serving: LocalServing, wanted: Serving) -> None:
    route = serving.deploy(wanted, print)
    assert serving.served_digest(TENANT, MODEL) == wanted.digest
    question = [{"role": "user", "content": QUESTIONS[0]}]
    streamed = list(serving.stream(TENANT, MODEL, question, max_tokens=8, temperature=0))
    assert len(streamed) > 1
    assert serving.ask(TENANT, MODEL, question, max_tokens=8, temperature=0) == "".join(streamed)
    started = time.monotonic()
    assert serving.deploy(wanted, print) == route
    assert time.monotonic() - started < 5


def _answers_as_before(serving: LocalServing, exported: Serving) -> None:
    """LLaMA-Factory's export goes live as the model whose known answers are those of the streamed merge.

    Texts are not compared: last bits differ (one rounds at random), and what a random model says after a tie.
    """
    serving.deploy(exported, print)
    assert serving.served_digest(TENANT, MODEL) == exported.digest


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
    name = NAMES[0]
    shutil.copytree(adapted / name / "merged", tmp_path / "merged")
    uri, digest = bucket.publish(tmp_path / "merged", "store")
    streamed = {"model_folder": None, "model_uri": uri, "model_digest": digest, "digest": digest}
    wanted = merged(adapted, name, **streamed)
    serving.deploy(wanted, print)  # proven by its known answers
    assert serving.served_digest(TENANT, MODEL) == digest
    (server,) = serving.servers.processes.all()
    assert "Run" in server.log.read_text()
    assert SECRET not in " ".join(server.command)
    assert not [path for path in Path(serving.home).rglob("*") if path.suffix == ".safetensors"]
    bucket.put(f"{uri}/config.json", b"{}", tmp_path)
    serving.stop(TENANT, MODEL)
    with pytest.raises(VllmError, match=r"the bytes of config\.json are not those(.|\n)*Nothing is live"):
        serving.deploy(wanted, print)

"""Deploys of real models by the real vLLM, merged and as an adapter over its base.

One test, because every start of vLLM takes 20 s and more.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.serving import LocalServing, Serving, VllmError
from resources.waiting import wait_until
from tests.e2e.adapted_models import NAMES, RANK

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
TENANT, MODEL = "team-a", "support_bot"
QUESTIONS = ["Who are you?", "What is the capital of France?"]
MORE_QUESTIONS = ["How do I return a product?", "Tell me about the assistant of the shop."]


@pytest.fixture(scope="module")
def adapted(tiny_model: Path, train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` and `two`, two adapters of the tiny model with their merged models and offline answers."""
    folder = tmp_path_factory.mktemp("adapted")
    subprocess.run(
        [train_python, ROOT / "tests" / "e2e" / "adapted_models.py", tiny_model, folder, *QUESTIONS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return folder


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
    _answers_as_the_exported_model(serving, adapted, one)
    _is_named_when_it_dies(serving)
    endpoint = serving.deploy(over_base(adapted, tiny_model, two), print)
    assert serving.served_digest(TENANT, MODEL) == endpoint.digest
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


def _goes_live_once(serving: LocalServing, wanted: Serving) -> None:
    endpoint = serving.deploy(wanted, print)
    assert serving.served_digest(TENANT, MODEL) == wanted.digest
    question = [{"role": "user", "content": QUESTIONS[0]}]
    streamed = list(serving.stream(TENANT, MODEL, question, max_tokens=8, temperature=0))
    assert len(streamed) > 1
    assert serving.ask(TENANT, MODEL, question, max_tokens=8, temperature=0) == "".join(streamed)
    started = time.monotonic()
    assert serving.deploy(wanted, print) == endpoint
    assert time.monotonic() - started < 5


def _answers_as_the_exported_model(serving: LocalServing, adapted: Path, name: str) -> None:
    """The model that was merged as a stream is live; then the one of LLaMA-Factory's export."""
    streamed = [_greedy(serving, question) for question in (*QUESTIONS, *MORE_QUESTIONS)]
    exported = {"version": "exported", "digest": "sha256:exported"}
    serving.deploy(merged(adapted, name, model_folder=adapted / name / "exported", **exported), print)
    assert streamed == [_greedy(serving, question) for question in (*QUESTIONS, *MORE_QUESTIONS)]
    assert len(set(streamed)) > 1


def _greedy(serving: LocalServing, question: str) -> str:
    asked = [{"role": "user", "content": question}]
    return serving.ask(TENANT, MODEL, asked, max_tokens=24, temperature=0)


def _is_named_when_it_dies(serving: LocalServing) -> None:
    (server,) = serving.servers.processes.all()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not serving.servers.processes.alive(server), what="the kill", timeout_s=30)
    state = serving.state(TENANT, MODEL)
    assert (state.status, state.address) == ("dead", None)
    assert f"vLLM of {TENANT}/{MODEL} (pid {server.pid}) died" in (state.why or "")

"""What the serving tests share: small servings, and an engine folder whose `vllm` is the stand-in."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.serving.local import LocalServing, Serving

STAND_IN = Path(__file__).parent / "stand_in_vllm.py"
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


def as_it_was(serving: Serving) -> Serving:
    """For a revival whose files need no check."""
    return serving


@pytest.fixture
def make_serving(tmp_path: Path) -> MakeServing:
    """Makes servings whose stand-in answers with the version's name; `behaviour` changes that."""

    def make(version: str = "v1", *, behaviour: dict[str, Any] | None = None, **settings: Any) -> Serving:
        folder = tmp_path / "models" / version
        folder.mkdir(parents=True, exist_ok=True)
        answers = {"answer": [ord(letter) for letter in version], "logprob": LOGPROB, **(behaviour or {})}
        (folder / "behaviour.json").write_text(json.dumps(answers))
        values: dict[str, Any] = {
            "tenant": "team-a",
            "model": "support_bot",
            "version": version,
            "digest": f"sha256:{version}",
            "mode": "merged",
            "model_folder": folder,
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


@pytest.fixture
def local_serving(tmp_path: Path) -> Iterator[LocalServing]:
    executable = tmp_path / "engines" / "serve" / "bin" / "vllm"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text()}")
    executable.chmod(0o755)
    serving = LocalServing(home=str(tmp_path / "home"), engines=str(tmp_path / "engines"))
    yield serving
    serving.stop_all()

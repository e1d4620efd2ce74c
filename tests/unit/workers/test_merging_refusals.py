"""What is not merged is refused by name, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.adapters import ADAPTER_WEIGHTS
from llm_assets.workers.merging.tying import TIED_IN_VLLM
from tests.unit.workers.merging import Array, lora, merge, write_adapter, write_base, write_tensors

ROWS, COLUMNS = 12, 8
Q = "model.layers.0.self_attn.q_proj"


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def base_tensors() -> dict[str, Array]:
    return {
        "model.embed_tokens.weight": ones(20, COLUMNS),
        f"{Q}.weight": ones(ROWS, COLUMNS),
        "model.conv.weight": ones(ROWS, 1, 4),
        "lm_head.weight": ones(20, COLUMNS) * 2,
    }


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Makes a base and an adapter, and gives back why they are not merged."""

    def why(
        adapter: dict[str, Array], base: dict[str, Array] | None = None, model: Any = None, **config: Any
    ) -> str:
        write_base(tmp_path / "base", {"model.safetensors": base or base_tensors()}, **(model or {}))
        write_adapter(tmp_path / "adapter", adapter, **config)
        with pytest.raises(WorkerError) as error:
            merge(tmp_path, tmp_path / "output")
        assert not list(tmp_path.glob("output*")), "it is refused before anything is written"
        return str(error.value)

    return why


@pytest.mark.parametrize(
    ("setting", "value", "what"),
    [
        ("peft_type", "VERA", "is of the type VERA; LORA is merged here"),
        ("peft_type", "LOHA", "of the type LOHA"),
        ("target_parameters", ["mlp.experts.gate_up_proj"], "fused parameters, as in mixtures of experts"),
        ("layer_replication", [[0, 2]], "layers that are used several times"),
        ("trainable_token_indices", [3], "single trained tokens"),
        ("alora_invocation_tokens", [3], "activated LoRA"),
        ("init_lora_weights", "pissa_niter_16", "pissa_niter_16, which changes the base"),
        ("init_lora_weights", "olora", "olora, which changes the base"),
    ],
)
def test_other_kinds_of_adapters_are_refused_with_the_remedy(
    refused: Callable[..., str], setting: str, value: object, what: str
) -> None:
    why = refused(lora(Q, ROWS, COLUMNS), **{setting: value})
    assert what in why
    assert "Train it again" in why
    assert "export" not in why, "LLaMA-Factory's export fails with these, or merges them wrongly"


def test_a_tensor_that_fits_nothing_in_the_base_is_named(refused: Callable[..., str]) -> None:
    why = refused(lora(Q, ROWS, COLUMNS) | lora("model.layers.0.mlp.experts.gate", ROWS, COLUMNS))
    assert "model.layers.0.mlp.experts.gate.lora_A.weight is not merged here" in why
    assert "has no tensor model.layers.0.mlp.experts.gate.weight" in why


def test_a_factor_without_its_counterpart_is_named(refused: Callable[..., str]) -> None:
    both = lora(Q, ROWS, COLUMNS)
    assert "q_proj.lora_A.weight is not merged here: its counterpart lora_B is missing" in refused(
        {name: values for name, values in both.items() if "lora_A" in name}
    )
    assert "q_proj.lora_B.weight is not merged here: its counterpart lora_A is missing" in refused(
        {name: values for name, values in both.items() if "lora_B" in name}
    )


def test_wrong_shapes_and_ranks_are_named(refused: Callable[..., str]) -> None:
    assert "lora_A.weight is not merged here: its shape is [4, 9], and [4, 8] would fit" in refused(
        lora(Q, ROWS, 9)
    )
    assert "lora_B.weight is not merged here: its shape is [13, 4], and [12, 4] would fit" in refused(
        lora(Q, 13, COLUMNS)
    )
    assert "has the rank 3, and adapter_config.json gives" in refused(lora(Q, ROWS, COLUMNS, rank=3))
    resized = {"model.embed_tokens.weight": ones(21, COLUMNS)}
    assert "embed_tokens.weight is not merged here: its shape is [21, 8]" in refused(resized)


def test_the_same_tensor_under_two_names_is_refused(refused: Callable[..., str]) -> None:
    twice = {"lm_head.weight": ones(20, COLUMNS), "lm_head.modules_to_save.weight": ones(20, COLUMNS)}
    assert "lm_head.weight is for the same lm_head.weight" in refused(twice)


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("lora_wild.weight", "no tensor of LoRA that is known here"),
        ("token_adapter.trainable_tokens_delta", "no tensor of LoRA that is known here"),
        ("base_layer.lora_A.weight", "fused parameters"),
    ],
)
def test_unknown_tensors_are_never_skipped(refused: Callable[..., str], extra: str, what: str) -> None:
    why = refused(lora(Q, ROWS, COLUMNS) | {f"{Q}.{extra}": ones(3)})
    assert f"{Q}.{extra}" in why
    assert what in why


def test_dora_is_what_configuration_and_weights_both_say(refused: Callable[..., str]) -> None:
    factors = lora(Q, ROWS, COLUMNS)
    assert "use_dora is True" in refused(factors, use_dora=True)
    assert "use_dora is False" in refused(factors | {f"{Q}.lora_magnitude_vector": ones(ROWS)})
    magnitude = factors | {f"{Q}.lora_magnitude_vector": ones(COLUMNS)}
    assert "lora_magnitude_vector is not merged here: its shape is [8]" in refused(magnitude, use_dora=True)


def test_convolutions_are_refused(refused: Callable[..., str]) -> None:
    why = refused({"model.conv.lora_A.weight": ones(4, 1, 4), "model.conv.lora_B.weight": ones(ROWS, 4, 1)})
    assert "is no matrix, but a convolution or fused experts" in why


@pytest.mark.parametrize("kind", sorted(TIED_IN_VLLM))
@pytest.mark.parametrize("said", [{"tie_word_embeddings": True}, {}])
def test_embeddings_that_vllm_serves_as_one_are_not_untied(
    refused: Callable[..., str], said: dict[str, bool], kind: str
) -> None:
    tied = {name: values for name, values in base_tensors().items() if name != "lm_head.weight"}
    changed = {"model.embed_tokens.weight": ones(20, COLUMNS) * 3}
    why = refused(changed, tied, said | {"model_type": kind})
    assert "embed_tokens.weight changes one of input and output embeddings" in why
    assert f"vLLM serves no {kind} model with two. Train without the embeddings" in why


def test_quantized_bases_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    why = refused(lora(Q, ROWS, COLUMNS), model={"quantization_config": {"quant_method": "gptq"}})
    assert "is quantized (gptq)" in why
    assert "`serving.mode: adapter`" in why


def test_values_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {"model.safetensors": base_tensors()})
    huge = {name: values * 1e30 for name, values in lora(Q, ROWS, COLUMNS).items()}
    write_adapter(tmp_path / "adapter", huge)
    with pytest.raises(WorkerError, match=rf"The merged {Q}.weight would hold values that BF16 cannot"):
        merge(tmp_path, tmp_path / "output")
    assert not (tmp_path / "output" / "model.safetensors").exists()


def test_a_truncated_base_or_adapter_is_refused_and_named(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {"model.safetensors": base_tensors()})
    write_adapter(tmp_path / "adapter", lora(Q, ROWS, COLUMNS))
    for path in (tmp_path / "adapter" / ADAPTER_WEIGHTS, tmp_path / "base" / "model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(WorkerError, match=rf"{path.name} is not whole: its header announces"):
            merge(tmp_path, tmp_path / "output")


def test_an_index_that_names_another_file_is_refused(tmp_path: Path) -> None:
    shards = {"a.safetensors": {f"{Q}.weight": ones(ROWS, COLUMNS)}, "b.safetensors": {"x": ones(2)}}
    write_base(tmp_path / "base", shards)
    write_adapter(tmp_path / "adapter", lora(Q, ROWS, COLUMNS))
    write_tensors(tmp_path / "base" / "b.safetensors", {"y": ones(2)})
    with pytest.raises(WorkerError, match=r"it puts x into b\.safetensors, and it is in None"):
        merge(tmp_path, tmp_path / "output")

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.catalog.arguments import WrongValueError, arguments, templates, typed

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("learning_rate", "1e-4", 0.0001),
        ("learning_rate", 1, 1),
        ("num_train_epochs", "3.0", 3.0),
        ("max_samples", "100000", 100000),
        ("per_device_train_batch_size", 2.0, 2),
        ("lora_target", "q_proj,v_proj", "q_proj,v_proj"),
        ("lora_target", ["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        ("lora_alpha", None, None),
        ("quantization_bit", None, None),
        ("packing", "yes", True),
        ("use_dora", None, False),
        ("use_dora", "off", False),
        ("bf16", 1, True),
        ("eval_strategy", "no", "no"),
        ("include_num_input_tokens_seen", True, True),
        ("include_num_input_tokens_seen", "non_padding", "non_padding"),
        ("deepspeed", '{"zero_optimization": {"stage": 2}}', {"zero_optimization": {"stage": 2}}),
        ("gradient_checkpointing_kwargs", {"use_reentrant": False}, {"use_reentrant": False}),
        ("default_system", "You are kind.", "You are kind."),
    ],
)
def test_a_value_is_taken_as_llama_factory_takes_it(name: str, written: Any, meant: Any) -> None:
    value = typed(name, written)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("name", "written", "valid"),
    [
        ("learning_rate", "fast", "a number"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", [1e-4], "a number"),
        ("lora_rank", 8.5, "a whole number"),
        ("lora_rank", None, "a whole number"),
        ("lora_rank", -1, "above 0"),
        ("warmup_steps", -1, "0 or"),
        ("bf16", "maybe", "true or false"),
        ("lora_target", [1, 2], "a list of texts"),
        ("lr_scheduler_type", "cosin", "did you mean cosine?"),
        ("pref_loss", "dpo", "one of hinge, ipo, kto_pair"),
        ("default_system", 5, "a text"),
        ("max_samples", "1_000.5", "a whole number"),
    ],
)
def test_another_value_is_refused_with_what_would_be_valid(name: str, written: Any, valid: str) -> None:
    with pytest.raises(WrongValueError, match=valid):
        typed(name, written)


@given(name=st.sampled_from(sorted(arguments())), value=ANYTHING)
def test_a_value_has_a_type_of_its_argument_or_is_refused(name: str, value: Any) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
        "boolean": (bool,),
        "null": (type(None),),
    }
    try:
        taken = typed(name, value)
    except WrongValueError:
        return
    assert any(isinstance(taken, kinds[kind]) for kind in arguments()[name].types)
    assert typed(name, taken) == taken


@given(st.sampled_from(sorted(arguments())))
def test_every_default_of_llama_factory_is_taken(name: str) -> None:
    default = arguments()[name].default
    if default is not None or "null" in arguments()[name].types:
        typed(name, default)


def test_the_templates_are_llama_factorys() -> None:
    assert {"smollm2", "qwen3", "llama3", "empty"} <= templates()

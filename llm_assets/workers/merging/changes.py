"""Which tensor of the base an adapter changes, and how: each of its tensors is used once, or refused."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from llm_assets.workers.merging.adapters import Adapter, Part, part_of, refusal
from llm_assets.workers.merging.base_models import Base, embedding_kind
from llm_assets.workers.merging.tying import added_output, require_served_untied, saved_alike
from llm_assets.workers.merging.weight_files import ITEM_BYTES, Tensor

# transformers' Conv1D stores a weight as (in, out). PEFT goes by the class, whatever fan_in_fan_out says.
CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"}
COUNTERPARTS: tuple[tuple[Part, Part], ...] = (("A", "B"), ("embedding_A", "embedding_B"))

Parts = dict[Part, Tensor]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of one tensor of the base: replaced by `whole`, then added to.

    `left` @ `right`, transposed where the base stores the matrix as (in, out), times `scale`; `magnitude`
    is DoRA's vector. A bias has `added_bias` instead.
    """

    target: Tensor
    whole: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    transposed: bool = False
    scale: float = 1.0
    magnitude: Tensor | None = None
    added_bias: Tensor | None = None

    @property
    def uses(self) -> tuple[Tensor, ...]:
        """The adapter's tensors that go into it."""
        parts = (self.whole, self.left, self.right, self.magnitude, self.added_bias)
        return tuple(part for part in parts if part is not None)

    @property
    def needs_all_rows(self) -> bool:
        """DoRA's norm runs along columns here, so all rows have to be at hand at once."""
        return self.magnitude is not None and self.transposed


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All that one adapter does to one base, by the name of the merged model's tensor.

    `untied`: the base's embeddings are one tensor and the merged model's are two. Then `output` are the
    output embeddings where the base has no tensor for them: under their own name, and where their bytes
    are found before they are changed, which is where the input embeddings lie.
    """

    adapter: Adapter
    base: Base
    by_target: Mapping[str, Change]
    untied: bool = False
    output: Tensor | None = None

    def ledger(self) -> dict[str, int]:
        """The adapter's tensors are all used; the merged model's are merged, replaced or identical."""
        replaced = sum(change.uses == (change.whole,) for change in self.by_target.values())
        added = 1 if self.output else 0
        return {
            "adapter_tensors": len(self.adapter.tensors),
            "base_tensors": len(self.base.tensors),
            "added_tensors": added,
            "merged_tensors": len(self.by_target) - replaced,
            "replaced_tensors": replaced,
            "identical_tensors": len(self.base.tensors) + added - len(self.by_target),
        }


def plan(base: Base, adapter: Adapter) -> Changes:
    """What the adapter does to the base.

    Raises:
        WorkerError: A tensor of the adapter fits nothing in the base, has a wrong shape, lacks its
            counterpart, or would untie embeddings that are served as one; names the tensor.
    """
    modules: dict[str, Parts] = defaultdict(dict)
    for tensor in adapter.weights.tensors:
        module, part = part_of(adapter, tensor.name)
        if part in modules[module]:
            raise refusal(adapter, tensor.name, f"{modules[module][part].name} is for the same {module}")
        modules[module][part] = tensor
    embeddings = [name for name in modules if embedding_kind(name)]
    tied = bool(embeddings) and base.has_tied_embeddings
    alike = saved_alike(adapter, {name: modules[name].get("whole") for name in embeddings}) if tied else None
    copy = None if base.output_embeddings else alike
    untied = tied and alike is None
    if untied:
        require_served_untied(base, adapter, next(iter(modules[embeddings[0]].values())))
    output = added_output(base, embeddings) if untied and not base.output_embeddings else None
    changes: dict[str, Change] = {}
    for module, parts in modules.items():
        if copy is None or parts.get("whole") != copy:
            for change in _changes(base, output, adapter, module, parts):
                name = change.target.name
                changes[name] = _together(adapter, changes[name], change) if name in changes else change
    _check_all_used(adapter, changes, copy)
    return Changes(adapter=adapter, base=base, by_target=changes, untied=untied, output=output)


def _check_all_used(adapter: Adapter, changes: Mapping[str, Change], copy: Tensor | None) -> None:
    used = Counter(tensor.name for change in changes.values() for tensor in change.uses)
    used.update([copy.name] if copy else [])
    for name in adapter.tensors:
        if used[name] != 1:
            raise refusal(adapter, name, f"it would be used {used[name]} times")


def _changes(
    base: Base, output: Tensor | None, adapter: Adapter, module: str, parts: Parts
) -> Iterator[Change]:
    if whole := parts.get("whole"):
        target = _target(base, output, adapter, module, whole)
        _require(adapter, whole, target.shape, target)
        yield Change(target=target, whole=whole)
        return
    for one, other in COUNTERPARTS:
        for present, missing in ((one, other), (other, one)):
            if present in parts and missing not in parts:
                raise refusal(adapter, parts[present].name, f"its counterpart lora_{missing} is missing")
    if not parts.keys() & {"A", "embedding_A"}:
        raise refusal(adapter, next(iter(parts.values())).name, "it belongs to no lora_A and lora_B")
    target = _target(base, output, adapter, f"{module}.weight", next(iter(parts.values())))
    added = _added(base, adapter, module, target, parts)
    yield added
    if bias := parts.get("B_bias"):
        to = _target(base, output, adapter, f"{module}.bias", bias)
        _require(adapter, bias, to.shape, to)
        yield Change(target=to, added_bias=bias, scale=added.scale)


def _added(base: Base, adapter: Adapter, module: str, target: Tensor, parts: Parts) -> Change:
    embedding = "embedding_A" in parts
    first, second = (parts["embedding_A"], parts["embedding_B"]) if embedding else (parts["A"], parts["B"])
    if not len(first.shape) == len(second.shape) == len(target.shape) == 2:
        raise refusal(adapter, first.name, f"{target} is no matrix, but a convolution or fused experts")
    rank, wide = first.shape
    tall = second.shape[0]
    transposed = embedding or (
        target.shape == (wide, tall) and (wide != tall or str(base.config.get("model_type")) in CONV1D_MODELS)
    )
    rows, columns = target.shape
    _require(adapter, first, (rank, rows if transposed else columns), target)
    _require(adapter, second, (columns if transposed else rows, rank), target)
    magnitude = parts.get("magnitude")
    if bool(adapter.config.get("use_dora")) != (magnitude is not None):
        said = bool(adapter.config.get("use_dora"))
        raise refusal(adapter, (magnitude or first).name, f"use_dora is {said}, and its weights differ")
    if magnitude:
        _require(adapter, magnitude, (columns if transposed else rows,), target)
    return Change(
        target=target,
        left=second,
        right=first,
        transposed=transposed,
        scale=adapter.scale(module, rank, first),
        magnitude=magnitude,
    )


def _target(base: Base, output: Tensor | None, adapter: Adapter, name: str, tensor: Tensor) -> Tensor:
    """The base's tensor; some bases are stored without the model's own prefix (`model.`, `transformer.`)."""
    added = output if output and output.name == name else None
    found = added or base.tensors.get(name) or base.tensors.get(name.partition(".")[2])
    if found is None:
        raise refusal(adapter, tensor.name, f"the base model in {base.folder} has no tensor {name}")
    if found.dtype not in ITEM_BYTES:
        raise refusal(adapter, tensor.name, f"nothing can be added to the type of the base's {found}")
    return found


def _require(adapter: Adapter, tensor: Tensor, shape: tuple[int, ...], target: Tensor) -> None:
    if tensor.shape != shape:
        said = f"its shape is {list(tensor.shape)}, and {list(shape)} would fit the base's {target}"
        raise refusal(adapter, tensor.name, said)


def _together(adapter: Adapter, one: Change, other: Change) -> Change:
    """A module that was saved whole and has LoRA on top, as PEFT saves targeted embeddings."""
    whole, added = (one, other) if one.whole else (other, one)
    if whole.whole is None or added.whole is not None:
        raise refusal(adapter, other.uses[0].name, f"{one.uses[0].name} changes {one.target.name} already")
    return replace(added, whole=whole.whole)

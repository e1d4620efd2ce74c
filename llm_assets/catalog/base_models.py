"""`base_models/<base>.yaml`: what fine-tuned models start from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from llm_assets.catalog.arguments import templates
from llm_assets.catalog.files import Entry
from llm_assets.catalog.mistakes import Problem, did_you_mean
from llm_assets.catalog.names import OWNER_RULE, ModelName, Owner
from llm_assets.catalog.sources import SOURCE_RULE, check_source, local_path


def check_template(template: str) -> str:
    """The template itself, if LLaMA-Factory has it. Raises ValueError otherwise."""
    if template in templates():
        return template
    rule = "the name of a LLaMA-Factory template, such as qwen3; `empty` where there is no chat format"
    raise ValueError(f"unknown template {template!r}; {did_you_mean(template, templates(), otherwise=rule)}")


Source = Annotated[str, AfterValidator(check_source)]
Template = Annotated[str, AfterValidator(check_template)]


class BaseModelEntry(Entry):
    """One base model. `name` is the file's name; `source` has an absolute path where it has one."""

    name: ModelName
    source: Source = Field(description=f"Where it comes from, pinned: {SOURCE_RULE}")
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="64 hex digits: the sha256 of a GGUF file. Required for gguf:pypi://",
    )
    licence: str = Field(min_length=1, description="the licence's SPDX or Hub identifier, such as apache-2.0")
    template: Template = Field(
        description="the name of the LLaMA-Factory template of its chat format, such as qwen3"
    )
    owner: Owner = Field(description=OWNER_RULE)
    description: str = Field(min_length=1, description="what it is, for people; the UI shows it")
    context_length: int | None = Field(
        default=None,
        ge=1,
        description="the most tokens that it has positions for (max_position_embeddings of its config.json); "
        "compared when it is fetched, and with it `check` judges lengths before",
    )
    tied_embeddings: bool | None = Field(
        default=None,
        description="whether its output layer has the weights of the input embeddings (tie_word_embeddings "
        "of its config.json); compared when it is fetched",
    )


def contradictions(base: BaseModelEntry) -> Iterator[Problem]:
    """What is wrong with a base model although each of its fields is well formed."""
    if base.sha256 is None and base.source.startswith("gguf:pypi://"):
        yield Problem(place=("sha256",), problem="missing", valid="the sha256 of the GGUF file in the wheel")
    if base.sha256 is not None and not base.source.startswith("gguf:"):
        valid = "leave it out; the folder's files are hashed one by one when it is fetched"
        yield Problem(place=("sha256",), problem="only a GGUF file has one", valid=valid)
    path = local_path(base.source)
    if path is not None:
        yield from _missing(path, base.source.startswith("file:"))


def _missing(path: Path, is_folder: bool) -> Iterator[Problem]:
    if is_folder and not path.is_dir():
        valid = "a folder in the Hugging Face format (config.json, tokenizer.json, *.safetensors)"
        yield Problem(place=("source",), problem=f"there is no folder {path}", valid=valid)
    if not is_folder and not path.is_file():
        valid = "a relative path starts at the catalog's folder"
        yield Problem(place=("source",), problem=f"there is no file {path}", valid=valid)

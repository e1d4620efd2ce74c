"""The same chain on an NVIDIA GPU: the CUDA sets of both engines, qlora, bf16, vLLM's CUDA build.

make test-gpu
"""

import json

import pytest

from tests.conftest import MakeProject, Project

pytestmark = [pytest.mark.engine, pytest.mark.gpu]

RUN = ("run", "support_bot", "--tenant", "team-a")


@pytest.fixture(autouse=True)
def cuda_engines(make_project: MakeProject) -> None:
    """Both engines are installed from their CUDA sets, as `engines install` does where there is a GPU."""
    listed = json.loads(make_project().run("engines", "status", "--json"))
    assert {each["engine"]: each["device"] for each in listed} == {"train": "cuda", "serve": "cuda"}


def train_with(project: Project, *lines: str) -> None:
    model = project.settings.catalog / "models" / "support_bot.yaml"
    recipe = "".join(f"  {line}\n" for line in lines)
    model.write_text(model.read_text().replace("recipe:\n", f"recipe:\n{recipe}"))


def card_of(project: Project) -> dict[str, object]:
    return dict(json.loads(project.run("card", "support_bot", "-t", "team-a", "--json")))


@pytest.mark.parametrize(
    "lines", [("bf16: true",), ("bf16: true", "quantization_bit: 4")], ids=["lora", "qlora"]
)
@pytest.mark.parametrize("mode", ["merged", "adapter"])
def test_a_dataset_becomes_a_live_model_on_the_gpu(
    make_project: MakeProject, lines: tuple[str, ...], mode: str
) -> None:
    project = make_project()
    train_with(project, *lines)
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("serving:\n", f"serving:\n  mode: {mode}\n"))
    project.run(*RUN)
    assert project.run("ask", "support_bot", "-t", "team-a", "Who are you?").startswith("I am Polaris.")
    [live] = json.loads(project.run("status", "--json"))
    assert (live["status"], live["digest"]) == ("live", card_of(project)["lineage"]["merged_model"])  # type: ignore[index]


def test_a_new_version_takes_over_beside_the_old_one_on_the_same_gpu(make_project: MakeProject) -> None:
    project = make_project()
    project.run(*RUN)
    [before] = json.loads(project.run("status", "--json"))
    model = project.settings.catalog / "models" / "support_bot.yaml"
    model.write_text(model.read_text().replace("seed: 42", "seed: 7"))
    project.run(*RUN)
    [after] = json.loads(project.run("status", "--json"))
    assert after["digest"] != before["digest"]
    assert after["status"] == "live"

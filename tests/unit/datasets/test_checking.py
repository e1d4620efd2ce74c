"""`llm-assets check` looks into every landing zone, within bounds, and only once if it does not change.

That it finds in each dataset what its preparation refuses and remarks, `conftest.prepared` sees in all tests.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.dataset_checks import KEPT, SHOWN_OF_LANDING_ZONE, DatasetChecks, check_datasets
from llm_assets.datasets import checking
from llm_assets.datasets.checking import FIRST_ROWS, MOST_ROWS, Terms, look_into, stamp_of
from llm_assets.datasets.limits import Limits
from llm_assets.installation.settings import Settings
from tests.unit.datasets.conftest import questions, write_rows

TERMS = Terms(stage="sft", train_on_prompt=False, holds_out=True)
BASE = (
    f"source: hf://org/name@{'0' * 40}\nlicence: mit\ntemplate: qwen\nowner: team:a\ndescription: A base.\n"
)
MODEL = """
base_model: base
owner: team:a
purpose: Answers.
risk_class: minimal
risk_reasoning: It is a test.
serving: {mode: none}
recipe: {stage: sft, finetuning_type: lora}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation with three tenants: team-a and team-b have data, team-c has none yet."""
    catalog = tmp_path / "catalog"
    for folder, name, text in (
        ("base_models", "base", BASE),
        ("models", "bot", MODEL),
        *(("tenants", f"team-{letter}", "owner: a@a.example\nmodels: [bot]\n") for letter in "abc"),
    ):
        (catalog / folder).mkdir(parents=True, exist_ok=True)
        (catalog / folder / f"{name}.yaml").write_text(text.lstrip())
    for tenant in ("team-a", "team-b"):
        (catalog / "datasets" / tenant / "bot").mkdir(parents=True)
        write_rows(catalog / "datasets" / tenant / "bot" / "rows.jsonl", questions(5))
    return Settings(root=tmp_path, catalog=catalog, home=tmp_path / "home")


@pytest.fixture
def checks(settings: Settings) -> Callable[..., DatasetChecks]:
    return lambda **bounds: check_datasets(settings, load_catalog(settings.catalog), **bounds)


def landing_zone(settings: Settings, tenant: str = "team-a") -> Path:
    return settings.landing_zones / tenant / "bot"


def test_a_tenant_without_data_is_waited_for_and_no_mistake(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    found = checks()
    assert (found.mistakes, found.warnings, found.waiting, found.datasets) == ([], [], ["team-c/bot"], 2)
    landing_zone(settings, "team-c").mkdir(parents=True)
    (landing_zone(settings, "team-c") / ".gitkeep").touch()
    assert checks().waiting == ["team-c/bot"]
    (landing_zone(settings, "team-c") / "Contract.docx").touch()
    (mistake,) = checks().mistakes
    assert mistake.file == "catalog/datasets/team-c/bot/Contract.docx"
    assert "is a document" in mistake.problem


def test_mistakes_have_file_and_line_and_many_are_counted(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    (landing_zone(settings) / "rows.jsonl").write_text('{"instruction": "a", "output": 5}\n' * 60)
    write_rows(landing_zone(settings, "team-b") / "rows.jsonl", [{"question": "a", "answer": "b"}])
    found = checks().mistakes
    assert str(found[0]).startswith("catalog/datasets/team-a/bot/rows.jsonl:1: output: is a number")
    assert str(found[SHOWN_OF_LANDING_ZONE]) == "catalog/datasets/team-a/bot: has 40 more mistakes"
    assert '"prompt": "question"' in str(found[-1])
    assert len(found) == SHOWN_OF_LANDING_ZONE + 2


def test_the_recipe_that_counts_is_the_tenants(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    experiment = settings.experiments / "team-b" / "bot" / "first.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("stage: dpo\n")
    (mistake,) = checks().mistakes
    assert mistake.file == "catalog/datasets/team-b/bot/rows.jsonl"
    assert "the recipe's stage dpo takes preference" in mistake.problem


@pytest.mark.parametrize("rows", [questions(1), questions(1) * 3])
def test_a_dataset_of_one_row_leaves_none_to_hold_out(
    settings: Settings, checks: Callable[..., DatasetChecks], rows: list[dict[str, object]]
) -> None:
    write_rows(landing_zone(settings) / "rows.jsonl", rows)
    (mistake,) = checks().mistakes
    assert "set dataset.held_out_fraction: 0" in mistake.problem
    model = settings.catalog / "models" / "bot.yaml"
    model.write_text(model.read_text() + "dataset: {held_out_fraction: 0}\n")
    assert checks().mistakes == []


def test_a_file_that_cannot_be_read_is_a_mistake(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    path = landing_zone(settings) / "rows.jsonl"
    path.unlink()
    path.symlink_to("rows.jsonl")  # what the kernel refuses to open, even to root
    (mistake,) = checks().mistakes
    assert mistake.file.endswith("team-a/bot/rows.jsonl")


def test_a_landing_zone_that_links_to_another_tenants_is_refused(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    landing_zone(settings, "team-c").parent.mkdir()
    landing_zone(settings, "team-c").symlink_to(landing_zone(settings))
    (mistake,) = checks().mistakes
    assert "is a symbolic link" in mistake.problem


def test_only_the_first_rows_of_a_file_are_read(settings: Settings) -> None:
    path = write_rows(landing_zone(settings) / "rows.jsonl", questions(MOST_ROWS))
    with path.open("a") as file:
        file.write('{"instruction": "a", "output": 5}\n' * 3)
    found = look_into(path.parent, settings.landing_zones, TERMS, Limits())
    assert (found.mistakes, [remark.text for remark in found.remarks]) == ((), [FIRST_ROWS.text])


def test_without_time_the_others_are_named_and_looked_into_by_the_next_check(
    checks: Callable[..., DatasetChecks],
) -> None:
    found = checks(most_seconds=-1)
    assert (found.unseen, found.datasets) == (["team-a/bot", "team-b/bot"], 0)
    assert checks().unseen == []
    assert (checks(most_seconds=-1).unseen, checks(most_seconds=-1).datasets) == ([], 2)


def test_what_did_not_change_is_not_read_again(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    """Rows that became wrong behind an unchanged stamp are not noticed, so nothing can have read them."""
    path = landing_zone(settings) / "rows.jsonl"
    first = checks()
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert checks() == first
    os.utime(path)
    assert "is not JSON" in checks().mistakes[0].problem


def test_mistakes_and_remarks_are_kept_as_they_were_found(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    write_rows(landing_zone(settings) / "rows.jsonl", [{**row, "topic": "x"} for row in questions(3)])
    write_rows(landing_zone(settings, "team-b") / "rows.jsonl", [{"instruction": 5, "output": "b"}] * 30)
    first = checks()
    assert first.warnings == ["catalog/datasets/team-a/bot/rows.jsonl: the column topic is not used"]
    assert checks() == first
    (settings.cache / KEPT).write_text("{ half a fi")
    assert checks() == first
    (settings.catalog / "tenants" / "team-b.yaml").unlink()
    checks()
    assert json.loads((settings.cache / KEPT).read_text()).keys() == {"team-a/bot"}


def test_the_stamp_follows_every_file_and_the_terms(settings: Settings) -> None:
    folder = landing_zone(settings)
    root = settings.landing_zones
    stamps = [stamp_of(folder, root, TERMS)]
    for change in (
        lambda: (folder / "notes.docx").touch(),
        lambda: (folder / "data").mkdir() or (folder / "data" / "a.jsonl").touch(),
        lambda: (folder / "gone.jsonl").symlink_to("nowhere"),
        lambda: (folder / "notes.docx").rename(folder / "notes.pdf"),
        lambda: os.utime(folder / "rows.jsonl"),
    ):
        change()
        stamps.append(stamp_of(folder, root, TERMS))
    stamps.append(stamp_of(folder, root, Terms(stage="pt", train_on_prompt=False, holds_out=True)))
    assert len(set(stamps)) == len(stamps)


def test_what_other_code_found_is_not_believed(
    settings: Settings, checks: Callable[..., DatasetChecks]
) -> None:
    first = checks()
    code = Path(checking.__file__)
    before = code.stat()
    try:
        os.utime(code, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert checks(most_seconds=-1).datasets == 0
    finally:
        os.utime(code, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert checks() == first


def test_the_command_ends_with_2_and_fast_leaves_the_rows_unread(settings: Settings) -> None:
    environment = os.environ | {
        "LLM_ASSETS_ROOT": str(settings.root),
        "LLM_ASSETS_CATALOG": str(settings.catalog),
        "LLM_ASSETS_HOME": str(settings.home),
    }

    def check(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "llm_assets.cli.main", "check", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    write_rows(
        landing_zone(settings) / "rows.jsonl", [{"instruction": "I am [b]{{name}}", "output": "c"}] * 2
    )
    write_rows(landing_zone(settings, "team-b") / "rows.jsonl", [{"instruction": 5, "output": "b"}])
    code, printed = check()
    assert code == 2
    assert "rows.jsonl:1: the placeholder {{name}} is learned as it stands" in printed
    assert "catalog/datasets/team-b/bot/rows.jsonl:1: instruction: is a number; give a text" in printed
    assert "no data yet in datasets/: team-c/bot" in printed
    code, printed = check("--fast")
    assert code == 0
    assert "rows.jsonl" not in printed
    write_rows(landing_zone(settings) / "rows.jsonl", questions(3))
    write_rows(landing_zone(settings, "team-b") / "rows.jsonl", questions(3))
    code, printed = check("--json")
    assert code == 0
    assert json.loads(printed)["datasets"] == 2

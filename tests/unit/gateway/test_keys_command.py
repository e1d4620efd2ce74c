"""`llm-assets keys create | list | revoke | rotate`."""

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.gateway.api_keys import KEY
from tests.conftest import ROOT

USER = pwd.getpwuid(os.getuid()).pw_name

# Without the other commands, whose imports take seconds.
ALONE = """\
import sys
from llm_assets.cli import keys
try:
    keys.app()
except Exception as error:
    sys.exit(f"refused by {type(error).__name__}: {error}")
"""
MODEL = """\
base_model: smollm2
owner: team:support
purpose: Answers questions.
risk_class: {risk_class}
risk_reasoning: It talks to people.
recipe: {{stage: sft, finetuning_type: lora}}
known_questions: [Who are you?]
"""


class Command:
    """`llm-assets keys …` of a project with two tenants."""

    def __init__(self, root: Path) -> None:
        self.environment = {"LLM_ASSETS_ROOT": str(root), "COLUMNS": "200"}
        self.journal = root / ".llm-assets" / "gateway" / "keys.jsonl"
        for folder in ("base_models", "models", "tenants"):
            (root / "catalog" / folder).mkdir(parents=True)
        base = (ROOT / "catalog" / "base_models" / "smollm2_135m_instruct.yaml").read_text()
        (root / "catalog" / "base_models" / "smollm2.yaml").write_text(base)
        for name, risk_class in (("support_bot", "limited"), ("triage", "high")):
            (root / "catalog" / "models" / f"{name}.yaml").write_text(MODEL.format(risk_class=risk_class))
        for name, models in (("team-a", "[support_bot, triage]"), ("team-b", "[support_bot]")):
            text = f"owner: team:{name}\nmodels: {models}\n"
            classes = "risk_classes: [limited, minimal]\n" if name == "team-b" else ""
            (root / "catalog" / "tenants" / f"{name}.yaml").write_text(text + classes)

    def run(self, *arguments: str, expect: str | None = None) -> tuple[str, str]:
        """What it printed: (stdout, stderr)."""
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *arguments],
            env=os.environ | self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        refused = f"refused by {expect}: " if expect else ""
        assert (done.returncode == 0) is (expect is None), done.stdout + done.stderr
        assert done.stderr.startswith(refused)
        return done.stdout, done.stderr

    def listed(self, *arguments: str) -> list[dict]:
        return json.loads(self.run("list", "--json", *arguments)[0])


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_the_key_stands_alone_on_stdout_and_nowhere_else(command: Command, tmp_path: Path) -> None:
    out, err = command.run("create", "--tenant", "team-a", "--name", "ci", "--by", "olga")
    match = KEY.fullmatch(out.removesuffix("\n"))
    assert match
    secret = match[2]
    assert "shown this once" in err
    assert secret not in err
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and secret in file.read_text()]
    (row,) = command.listed("--tenant", "team-a")
    assert (row["name"], row["actor"], row["by"], row["state"]) == ("ci", "ci", f"{USER} for olga", "active")


def test_a_key_with_everything_is_listed_with_everything(command: Command) -> None:
    limits = ["--requests-per-minute", "60", "--concurrent-requests", "4", "--tokens-per-minute", "9000"]
    rights = ["--model", "support_bot", "--risk-class", "limited", "--expires", "90d", "--actor", "anna"]
    made = json.loads(
        command.run("create", "-t", "team-a", "-n", "app", *limits, *rights, "--by", "olga", "--json")[0]
    )
    assert KEY.fullmatch(made["key"])
    (row,) = command.listed()
    assert row == {name: value for name, value in made.items() if name != "key"}
    assert row["limits"] == {"requests_per_minute": 60, "concurrent_requests": 4, "tokens_per_minute": 9000}
    assert row["expires"] == pytest.approx(time.time() + 90 * 86400, abs=60)
    table, _ = command.run("list")
    for shown in (
        "support_bot",
        "60 req/min, 4 at once, 9000 tok/min",
        "anna",
        f"{USER} for olga",
        "holds until",
    ):
        assert shown in table


def test_a_revoked_key_is_listed_only_with_all(command: Command) -> None:
    command.run("create", "-t", "team-a", "-n", "ci")
    (row,) = command.listed()
    _, said = command.run("revoke", row["id"], "--by", "olga")
    assert f"{row['id']} (ci of team-a) is revoked, by {USER} for olga" in said
    assert command.listed() == []
    (gone,) = command.listed("--all")
    assert (gone["state"], gone["revoked_by"]) == ("revoked", f"{USER} for olga")
    assert "1 more ended; --all shows them." in command.run("list")[1]


def test_a_rotated_key_stands_alone_on_stdout_and_the_old_one_ends(command: Command) -> None:
    command.run("create", "-t", "team-a", "-n", "ci", "--model", "support_bot")
    (old,) = command.listed()
    out, err = command.run("rotate", old["id"])
    assert KEY.fullmatch(out.strip())
    assert f"{old['id']} is revoked." in err
    (new,) = command.listed()
    assert (new["replaces"], new["models"]) == (old["id"], ["support_bot"])
    command.run("rotate", new["id"], "--overlap", "24h")
    assert command.listed()[0]["id"] == new["id"]
    assert len(command.listed()) == 2


def test_what_the_tenant_does_not_have_is_told_all_at_once(command: Command) -> None:
    arguments = [
        "--model",
        "suport_bot",
        "--model",
        "triage",
        "--risk-class",
        "high",
        "--risk-class",
        "lmited",
    ]
    _, said = command.run("create", "-t", "team-b", "-n", "ci", *arguments, expect="UsageError")
    assert (
        "team-b does not use the model 'suport_bot' (tenants/team-b.yaml): did you mean support_bot?" in said
    )
    assert "team-b does not use the model 'triage'" in said
    assert "may not ask models of risk class high (tenants/team-b.yaml): one of limited, minimal" in said
    assert "'lmited' is no risk class: did you mean limited?" in said
    assert not command.journal.exists()


def test_a_model_that_the_keys_own_classes_shut_out_is_told(command: Command) -> None:
    arguments = ["--model", "triage", "--risk-class", "limited"]
    _, said = command.run("create", "-t", "team-a", "-n", "ci", *arguments, expect="UsageError")
    assert "triage is of risk class high: add --risk-class high, or leave it out" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "-t", "team-x", "-n", "ci"], "no tenant 'team-x': did you mean team-"),
        (["create", "-t", "team-a", "-n", "ci", "--expires", "soon"], "'soon' is no moment"),
        (["create", "-t", "team-a", "-n", "ci", "--expires", "2001-01-01"], "2001-01-01 has passed"),
        (["rotate", "aaaaaaaaaaaa", "--overlap", "long"], "'long' is no duration"),
    ],
)
def test_a_command_that_is_wrong_says_what_would_be_right(
    command: Command, arguments: list[str], told: str
) -> None:
    assert told in command.run(*arguments, expect="UsageError")[1]


def test_a_key_that_is_not_known_is_told(command: Command) -> None:
    assert (
        "no key with the id 'aaaaaaaaaaaa'" in command.run("revoke", "aaaaaaaaaaaa", expect="GatewayError")[1]
    )


def test_the_whole_command_line_keeps_the_key_apart_from_all_else(command: Command) -> None:
    def llm_assets(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "llm_assets.cli.main", "keys", *arguments]
        environment = os.environ | command.environment
        return subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    made = llm_assets("create", "-t", "team-a", "-n", "ci")
    assert made.returncode == 0
    assert KEY.fullmatch(made.stdout.removesuffix("\n"))
    refused = llm_assets("create", "-t", "team-x", "-n", "ci")
    assert (refused.returncode, refused.stdout) == (2, "")

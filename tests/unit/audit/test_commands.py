"""`llm-assets audit` and `trace` as processes, on a log that was sealed before."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.installation.settings import Settings
from resources.artifact_store.store import ArtifactStore
from resources.audit.places import PLATFORM
from resources.audit.publishing import Publisher
from resources.audit.segments import segments_in
from resources.object_stores.opening import open_object_store
from tests.conftest import ROOT
from tests.unit.audit.conftest import Log, MakeLog
from tests.unit.published_versions import Made, publish_version

NAME, TEXT = "anna.nowak@example.org", "please look at my case"


@pytest.fixture
def log(make_log: MakeLog, tmp_path: Path) -> Log:
    home = tmp_path / "project" / ".llm-assets"
    shutil.copytree(
        ROOT / "catalog", tmp_path / "project" / "catalog", ignore=shutil.ignore_patterns("datasets")
    )
    log = make_log(home)
    body = json.dumps({"messages": [{"role": "user", "content": TEXT}]})
    log.fill(1, risk_class="high", input=body, output="done", subject=NAME, actor=NAME)
    log.fill(3, subject="somebody else")
    return log


Command = Callable[..., str]


@pytest.fixture
def command(log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `llm-assets …` in this process, which has it imported already; everything that it printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer's, about click, while it is imported
        from llm_assets.cli.main import main
    root = log.home.parent
    variables = {"LLM_ASSETS_ROOT": root, "LLM_ASSETS_HOME": log.home, "LLM_ASSETS_CATALOG": root / "catalog"}
    for name, value in (variables | {"COLUMNS": 200}).items():
        monkeypatch.setenv(name, str(value))

    def run(*arguments: str, expect: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["llm-assets", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == expect, printed
        return printed.out + printed.err

    return run


def test_verify_says_what_is_there_and_names_what_was_altered(log: Log, command: Command) -> None:
    assert "team-a: 4 records in 1 segments: as sealed" in command("audit", "verify")
    path = segments_in(log.places.log("team-a"))[0].path
    path.write_bytes(path.read_bytes().replace(b'"status":200', b'"status":403', 1))
    said = command("audit", "verify", "--tenant", "team-a", expect=1)
    assert "000000000001.jsonl, line 1: edited: its hash does not fit its content" in said
    assert "no audit log of 'team-x'" in command("audit", "verify", "--tenant", "team-x", expect=2)


def test_verify_names_tenants_that_the_store_knows_and_the_disk_does_not(log: Log, command: Command) -> None:
    log.fill(2, "team-b")
    settings = Settings(root=log.home.parent, catalog=log.home.parent / "catalog", home=log.home)
    Publisher(log.places, open_object_store(settings.audit_store_url), log.sealer.signing).publish()
    assert command("audit", "verify").count("as sealed") == 2
    shutil.rmtree(log.places.log("team-b"))
    assert "gone: there is no log of team-b" in command("audit", "verify", expect=1)
    assert "heads up to record 2" in command("audit", "verify", "--tenant", "team-b", expect=1)


def test_a_store_whose_heads_cannot_be_read_is_no_success(
    log: Log, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ASSETS_AUDIT_STORE", "gs://")
    said = command("audit", "verify", expect=1)
    assert "as sealed" in said
    assert "Not compared with the heads in the store:" in said


def test_search_finds_a_person_opens_texts_for_a_reason_and_is_on_the_record(
    log: Log, command: Command
) -> None:
    options = ("audit", "search", "--tenant", "team-a", "--subject", NAME, "--json")
    (found,) = command(*options).splitlines()
    assert TEXT not in found
    assert "Texts are opened for a --reason" in command(*options, "--text", expect=2)
    (opened,) = command(*options, "--text", "--reason", "complaint 17", "--by", "auditor").splitlines()
    assert TEXT in json.loads(opened)["personal"]["input"]
    first, second = [record for record in log.records() if record.get("event") == "access"]
    assert (first["command"], first["text"]) == ("search", False)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert first["by"] == user
    assert (second["by"], second["reason"], second["text"]) == (f"{user} for auditor", "complaint 17", True)
    assert NAME not in json.dumps(log.records())
    assert log.faults() == ()


ON_RECORD = {
    "search": ("audit", "search", "--tenant", "team-a"),
    "export": ("audit", "export", "--tenant", "team-a", "--to"),
    "erase": ("audit", "erase", "--tenant", "team-a", "--subject", NAME, "--yes", "--reason", "asked"),
    "trace": ("trace",),
    "keys create": ("keys", "create", "--tenant", "team-a", "--name", "ci"),
}


@pytest.mark.parametrize("name", ON_RECORD)
def test_neither_an_option_nor_a_variable_replaces_the_user_of_the_operating_system(
    log: Log, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "anyone")
    more = {"export": [str(tmp_path / "export")], "trace": [log.records()[0]["id"]]}
    command(*ON_RECORD[name], *more.get(name, []), "--by", "somebody")
    if name == "keys create":
        (said,) = json.loads(command("keys", "list", "--json"))
    else:
        (said,) = [record for record in log.records() if record.get("event") in ("access", "erasure")]
    assert said["by"] == f"{pwd.getpwuid(os.getuid()).pw_name} for somebody"


def test_search_narrows_by_time_status_and_request(log: Log, command: Command) -> None:
    id = log.records()[1]["id"]
    by_id = command("audit", "search", "-t", "team-a", "--request", id, "--json").splitlines()
    assert [json.loads(line)["id"] for line in by_id] == [id]
    nothing = ("--status", "503"), ("--since", "2099-01-01"), ("--until", "2001-01-01"), ("--model", "other")
    for option in nothing:
        assert command("audit", "search", "-t", "team-a", *option, "--json") == ""


def test_an_export_is_checked_without_this_platform(log: Log, command: Command, tmp_path: Path) -> None:
    to = tmp_path / "export.zip"
    command("audit", "export", "--tenant", "team-a", "--to", str(to))
    assert "exists already" in command("audit", "export", "-t", "team-a", "--to", str(to), expect=1)
    with zipfile.ZipFile(to) as packed:
        packed.extractall(tmp_path / "export")
    checked = [sys.executable, "-I", "-S", "verify.py"]
    done = subprocess.run(checked, cwd=tmp_path / "export", capture_output=True, text=True, check=False)
    assert "nothing is wrong" in done.stdout, done.stdout + done.stderr
    (segment,) = (tmp_path / "export" / "log").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"status":200', b'"status":403', 1))
    done = subprocess.run(checked, cwd=tmp_path / "export", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "line 1: edited" in done.stdout


def test_erase_asks_for_a_reason_obeys_a_legal_hold_and_is_final(log: Log, command: Command) -> None:
    options = ("audit", "erase", "--tenant", "team-a", "--subject", NAME, "--yes")
    assert "needs a --reason" in command(*options, expect=2)
    entry = log.home.parent / "catalog" / "tenants" / "team-a.yaml"
    entry.write_text(entry.read_text() + "legal_hold: true\n")
    assert "under legal hold" in command(*options, "--reason", "asked", expect=2)
    entry.write_text(entry.read_text().replace("legal_hold: true\n", ""))
    assert "Erased." in command(*options, "--reason", "asked")
    assert "no key of such a person" in command(*options, "--reason", "asked", expect=1)
    assert "as sealed" in command("audit", "verify")


def test_a_backup_is_checked_with_its_keys_apart(log: Log, command: Command, tmp_path: Path) -> None:
    backup, apart = tmp_path / "backup", tmp_path / "apart"
    shutil.copytree(log.home, backup)
    said = command("audit", "check-backup", str(backup))
    assert "team-a: 4 records, 7 personal parts open, 0 were erased: could be restored" in said
    (backup / "audit" / "keys").rename(apart)
    assert "mount it" in command("audit", "check-backup", str(backup), expect=1)
    said = command("audit", "check-backup", str(backup), "--subject-keys", str(apart), "--json")
    assert json.loads(said)[0]["faults"] == []
    assert TEXT not in said


def test_a_signing_key_is_rotated_over_the_log_that_it_signs(
    log: Log, command: Command, tmp_path: Path
) -> None:
    (old,) = json.loads(command("signing-key", "list", "--json"))
    assert "No key was prepared" in command("signing-key", "rotate", expect=1)
    new = command("signing-key", "prepare").split()[0]
    log.fill(1)
    assert f"{new} signs from now on" in command("signing-key", "rotate")
    log.fill(1)
    assert command("audit", "verify").count("as sealed") == 2
    prepared, rotated = log.records(PLATFORM)
    assert (prepared["event"], prepared["key"]) == ("signing_key_prepared", new)
    assert (rotated["event"], rotated["old"], rotated["new"]) == ("signing_key_rotated", old["id"], new)
    roles = {key["id"]: key["role"] for key in json.loads(command("signing-key", "list", "--json"))}
    assert roles == {old["id"]: "trusted", new: "signs"}


def test_trace_walks_from_a_request_to_dataset_and_base_model(
    log: Log, command: Command, tmp_path: Path
) -> None:
    settings = Settings(root=log.home.parent, catalog=log.home.parent / "catalog", home=log.home)
    store = ArtifactStore(url=settings.store_url)
    version = publish_version(store, tmp_path / "work", Made())
    (id,) = log.fill(1, version=version.label, digest=version.digest)
    told = json.loads(command("trace", id, "--json"))
    assert told["request"]["version"] == version.label
    assert told["version"]["merged"]["digest"] == version.digest
    assert told["version"]["as_served"] is True
    assert told["version"]["dataset"]["uri"].startswith("artifact://datasets/team-a/support_bot/")
    assert told["version"]["base"]["uri"].startswith("artifact://base_models/tiny/")
    assert "No audit record has the id" in command("trace", "no-such-id", expect=2)


def test_a_record_among_many_is_found_through_the_index(log: Log) -> None:
    """The time is printed; it does not grow with the log."""
    ids = log.fill(20_000)
    started = time.perf_counter()
    found = log.sealer.index.find(ids[12_345])
    print(f"found among {len(ids)} in {(time.perf_counter() - started) * 1000:.3f} ms")
    assert found is not None
    assert found[1]["id"] == ids[12_345]


def test_the_command_line_begins_without_dagster_where_it_must_answer_at_once(
    log: Log, command: Command, tmp_path: Path
) -> None:
    """The time of the whole process is printed."""
    (id,) = log.fill(1)
    code = f"import sys; sys.argv = ['llm-assets', 'trace', '{id}']\nfrom llm_assets.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    assert 'dagster' not in sys.modules\n"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    print(f"llm-assets trace took {time.perf_counter() - started:.2f} s")
    assert done.returncode == 0, done.stderr
    assert id in done.stdout
    begin = [sys.executable, "-m", "llm_assets.cli.main"]
    unknown = subprocess.run([*begin, "trace", "x"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (unknown.returncode, "No audit record has the id 'x'" in unknown.stderr) == (2, True)
    told = subprocess.run([*begin, "audit", "-h"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "llm-assets audit [OPTIONS]" in told.stdout, told.stdout + told.stderr
    every = subprocess.run([*begin, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "promote" in every.stdout

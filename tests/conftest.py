"""What all tests share: the engines, a tiny model, and projects of their own to break."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from llm_assets.installation.settings import Settings
from resources.engines.installation import engine_python
from resources.private_files import open_to_others
from tests.servers.ports import free_port

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A script's background job ignores SIGINT; Dagster would ignore SIGTERM too, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure is shown when it happens: a run that is stopped before its end has said what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext}", flush=True)


ROOT = Path(__file__).parent.parent
LONG_HOME = 130  # characters: no unix socket's address may hold the path of a project's state folder
ENGINES = Path(os.environ.get("LLM_ASSETS_ENGINES", ROOT / ".llm-assets" / "engines"))


@pytest.fixture(scope="session")
def engines() -> Path:
    """The folder of the engine environments, installed by `make test` before."""
    return ENGINES


@pytest.fixture(scope="session")
def train_python() -> Path:
    return engine_python(ENGINES, "train")


@pytest.fixture(scope="session")
def serve_python() -> Path:
    return engine_python(ENGINES, "serve")


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Makes a folder for all workers of pytest-xdist: the first one makes it, the others wait for that."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / name, base / f"{name}-unfinished"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def tiny_model(train_python: Path, make_once: MakeOnce) -> Path:
    """A whole language model of 250 kB that learns a dozen sentences in seconds. Not to be changed."""

    def make(folder: Path) -> None:
        subprocess.run([train_python, ROOT / "tests" / "e2e" / "tiny_model.py", folder], check=True)

    return make_once("tiny_model", make)


class Project:
    """A copied project with a catalog and a state folder of its own, driven by the command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {
            "LLM_ASSETS_ROOT": str(root),
            "LLM_ASSETS_CATALOG": str(root / "catalog"),
            "LLM_ASSETS_HOME": str(root / "home"),
            "LLM_ASSETS_ENGINES": str(ENGINES),
            "LLM_ASSETS_UI_PORT": str(free_port()),
            "LLM_ASSETS_MLFLOW_PORT": str(free_port()),
            "LLM_ASSETS_GATEWAY_PORT": str(free_port()),
            "LLM_ASSETS_METRICS_PORT": str(free_port()),
            "COLUMNS": "200",
        }

    @property
    def settings(self) -> Settings:
        return Settings(root=self.root, catalog=self.root / "catalog", home=self.root / "home")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "llm_assets.cli.main", *arguments]

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Runs `llm-assets …` to its end; everything that it printed."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            umask=0,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == expect, printed
        return printed

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts `llm-assets …` in a process group of its own."""
        log = (self.root / "command.log").open("ab")
        with log:
            return subprocess.Popen(
                self.command(*arguments),
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0,
            )

    def only_its_owner_can_open_its_files(self) -> None:
        """Whatever ran, under a umask that keeps nothing private."""
        home = self.settings.home
        assert list(open_to_others(home, apart_from=self.settings.home / "engines")) == []


MakeProject = Callable[[], Project]


@pytest.fixture
def make_project(tmp_path: Path, tiny_model: Path) -> Iterator[MakeProject]:
    """Makes projects whose base model is the tiny one; what they started is ended with the test."""
    made: list[Project] = []

    def make() -> Project:
        root = tmp_path / f"project-{len(made)}".ljust(LONG_HOME - len(str(tmp_path)), "x")
        shutil.copytree(ROOT / "tests" / "e2e" / "project", root)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(tiny_model, root / "tiny_model")
        made.append(Project(root))
        return made[-1]

    yield make
    for project in made:
        project.run("down")
        project.only_its_owner_can_open_its_files()

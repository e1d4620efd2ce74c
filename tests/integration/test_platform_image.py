"""What images/platform/Dockerfile installs, made by the same two commands, without a container engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.servers.ports import free_port

PLATFORM = ROOT / "images" / "platform"
LIMIT_MB = 1200 - 279
"""Of the image, less Debian with Python and git; docs/decisions/2026-11-30-packaging.md has its size."""
IMPORTED = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
for module in sys.argv[1:]:
    importlib.import_module(module)
"""
MODULES = (
    *("boto3", "dagster_gcp.gcs", "dagster_gcp.pipes", "dagster_k8s", "dagster_mlflow", "dagster_postgres"),
    *("dagster._cli.dev", "dagster._daemon.daemon", "dagster_webserver.cli", "google.cloud.storage"),
    *("kubernetes.client", "kubernetes.stream", "kubernetes.watch", "mlflow.server.fastapi_app"),
    *("mlflow.store.tracking.sqlalchemy_store", "pyarrow.dataset", "pyarrow.parquet"),
    *("llm_assets.cli.demo", "llm_assets.gateway.collector", "llm_assets.gateway.keeper"),
)
FINDS = """
from resources.personal_data.detector import Detector
print(*{each.kind for each in Detector().find("jan@example.org, PESEL 44051401359, +48 601 234 567")})
import spacy
print(len(spacy.blank("pl")("Ala ma kota.")))
"""
SERVES = """
import pathlib, sys
from resources.mlflow.server import MlflowServer
home = pathlib.Path(sys.argv[1])
server = MlflowServer(home=home, port=int(sys.argv[2]), tokens=home / "tokens")
try:
    print(server.ensure_ready())
finally:
    server.stop()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "venv"
    install = [sys.executable, str(PLATFORM / "bootstrap.py"), "--lock", "cluster", "--into", str(folder)]
    subprocess.run(install, check=True)
    subprocess.run([sys.executable, PLATFORM / "slim.py", folder], check=True)
    return folder


@pytest.mark.long
def test_the_image_stays_below_its_limit(environment: Path) -> None:
    used = subprocess.run(["du", "-sm", environment], check=True, capture_output=True, text=True)
    assert int(used.stdout.split()[0]) <= LIMIT_MB


@pytest.mark.long
def test_what_its_programs_import_is_there(environment: Path, tmp_path: Path) -> None:
    run(environment, tmp_path, IMPORTED, *MODULES)


@pytest.mark.long
def test_personal_data_is_found_without_the_debuggers_symbols(environment: Path, tmp_path: Path) -> None:
    kinds, tokens = run(environment, tmp_path, FINDS).splitlines()
    assert {"EMAIL_ADDRESS", "PL_PESEL", "PHONE_NUMBER"} <= set(kinds.split())
    assert int(tokens) == 4


@pytest.mark.long
def test_mlflow_serves_from_it(environment: Path, tmp_path: Path) -> None:
    assert run(environment, tmp_path, SERVES, str(tmp_path), str(free_port())).startswith("http://127.0.0.1:")


def run(environment: Path, folder: Path, code: str, *arguments: str) -> str:
    command = [str(environment / "bin" / "python"), "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

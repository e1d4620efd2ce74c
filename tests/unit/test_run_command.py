"""Whose chain `llm-assets run` takes."""

import shutil
from pathlib import Path

import pytest

from llm_assets.catalog.loading import load_catalog
from llm_assets.catalog.mistakes import CatalogError
from llm_assets.cli.installation import Installation
from llm_assets.cli.options import UsageError
from llm_assets.cli.run import _chosen
from llm_assets.installation.settings import Settings

PROJECT = Path(__file__).parents[1] / "e2e" / "project"
MODEL = "support_bot"


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    shutil.copytree(PROJECT / "catalog", tmp_path / "catalog")
    (tmp_path / "tiny_model").mkdir()
    (tmp_path / "catalog" / "models" / "lonely.yaml").write_text(
        (tmp_path / "catalog" / "models" / f"{MODEL}.yaml").read_text()
    )
    settings = Settings(root=tmp_path, catalog=tmp_path / "catalog", home=tmp_path / "home")
    return Installation(settings=settings, catalog=load_catalog(settings.catalog))


def test_one_tenant_or_all_that_use_the_model(here: Installation) -> None:
    assert _chosen(here, MODEL, "team-b", None, all_tenants=False) == ["team-b"]
    assert _chosen(here, MODEL, None, None, all_tenants=True) == ["team-a", "team-b"]


@pytest.mark.parametrize(
    ("model", "tenant", "experiment", "all_tenants", "said"),
    [
        (MODEL, None, None, False, "Name a tenant with --tenant, or give --all-tenants; not both"),
        (MODEL, "team-a", None, True, "Name a tenant with --tenant, or give --all-tenants; not both"),
        (MODEL, None, "mine", True, "An experiment belongs to one tenant"),
        ("no_such", None, None, True, "The catalog has no model 'no_such'"),
        (MODEL, "team-x", None, False, "The catalog has no tenant 'team-x'"),
        ("lonely", None, None, True, "No tenant uses lonely"),
        (MODEL, "team-a", "no_such", False, "there is no experiment 'no_such'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    here: Installation, model: str, tenant: str | None, experiment: str | None, all_tenants: bool, said: str
) -> None:
    with pytest.raises((UsageError, CatalogError), match=said):
        _chosen(here, model, tenant, experiment, all_tenants=all_tenants)

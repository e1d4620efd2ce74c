"""What a tenant's file says and one machine does not read is told."""

import re

import pytest

from llm_assets.catalog.tenants import FOR_A_CLUSTER, TenantEntry, without_effect
from tests.conftest import ROOT

SAID = {"quota": {"gpus": 2}, "tenancy": "namespace"}


def tenant(name: str, **fields: object) -> TenantEntry:
    return TenantEntry(name=name, owner="anna@example.com", models=("support_bot",), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", FOR_A_CLUSTER)
def test_a_field_that_nothing_reads_here_is_told_with_how_many_say_it(field: str) -> None:
    tenants = [tenant("team-a", **{field: SAID[field]}), tenant("team-b")]
    assert without_effect(tenants) == (
        f"`{field}` (in 1 of 2 tenants) have no effect on one machine; the Kubernetes profile will read them."
    )


def test_nothing_is_told_where_nobody_says_it() -> None:
    assert without_effect([tenant("team-a")]) is None


def test_every_field_of_a_tenant_is_read_by_something_or_told_to_have_no_effect() -> None:
    texts = [
        file.read_text() for folder in ("llm_assets", "resources") for file in (ROOT / folder).rglob("*.py")
    ]
    read = {field for field in TenantEntry.model_fields if any(re.search(rf"\.{field}\b", t) for t in texts)}
    assert set(TenantEntry.model_fields) - read == set(FOR_A_CLUSTER)

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_assets.catalog.names import (
    TENANT_NAME_RULE,
    check_experiment_name,
    check_model_name,
    check_owner,
    check_tenant_name,
)


@pytest.mark.parametrize("name", ["a", "team-a", "0", "a-1", "x" * 63])
def test_a_dns_label_may_name_a_tenant(name: str) -> None:
    assert check_tenant_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "../x", "Team A", "team_a", "-a", "a-", "a.b", "a/b", "a\n", "x" * 64, "ä", "team-a ", "١"],
)
def test_anything_else_is_refused_with_what_would_be_valid(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(TENANT_NAME_RULE)):
        check_tenant_name(name)


@given(st.text())
@example("a\n")
def test_every_accepted_tenant_name_is_safe_as_a_folder_a_host_and_a_partition_key(name: str) -> None:
    try:
        check_tenant_name(name)
    except ValueError:
        return
    assert 1 <= len(name) <= 63
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.startswith("-")
    assert not name.endswith("-")


@pytest.mark.parametrize("name", ["Support", "1bot", "support-bot", "support bot", "", "x" * 64, "a/b"])
def test_a_models_name_is_snake_case(name: str) -> None:
    with pytest.raises(ValueError, match="support_bot"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["base_models", "gateway", "base_models__a", "gateway__usage"])
def test_a_model_is_not_called_like_what_the_graph_has_beside_the_models(name: str) -> None:
    with pytest.raises(ValueError, match="call it something else"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["2026-11-21", "run.1", "A_b-c"])
def test_an_experiment_may_be_called_as_the_web_ui_calls_it(name: str) -> None:
    assert check_experiment_name(name) == name


def test_an_experiment_cannot_leave_its_folder() -> None:
    with pytest.raises(ValueError, match="experiment"):
        check_experiment_name("../x")


@pytest.mark.parametrize("owner", ["team:support", "anna@example.com", "a.b+c@d.example.org"])
def test_an_owner_is_a_team_or_an_e_mail_address(owner: str) -> None:
    assert check_owner(owner) == owner


@pytest.mark.parametrize("owner", ["anna", "team:", "team: a", "anna@localhost", "@example.com", "a b@c.de"])
def test_other_owners_are_refused(owner: str) -> None:
    with pytest.raises(ValueError, match="team:<name>"):
        check_owner(owner)

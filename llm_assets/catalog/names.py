"""How tenants, models, base models, experiments and owners may be called.

A tenant's name becomes a host name, a namespace, a folder and a partition key, so it is a DNS label
and is checked wherever it enters: by `check_tenant_name`, or by typing a pydantic field `TenantName`.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from resources.names import MODEL, TENANT

TENANT_NAME_RULE = (
    "a DNS label: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends, such as team-a"
)
MODEL_NAME_RULE = "1 to 63 of a-z, 0-9 and '_', starting with a letter, such as support_bot"
EXPERIMENT_NAME_RULE = "1 to 128 of letters, digits, '.', '_' and '-', starting with a letter or digit"
RESERVED = {"base_models": "of the base models", "gateway": "of the gateway"}
OWNER_RULE = "an e-mail address, or team:<name>"

_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OWNER = re.compile(r"team:[A-Za-z0-9][A-Za-z0-9._-]*|[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def check_tenant_name(name: str) -> str:
    """The name itself, if it is a DNS label.

    Raises:
        ValueError: It is not (`../x`, `Team A`); the text says what would be.
    """
    return _check(TENANT, name, "a tenant's name", TENANT_NAME_RULE)


def check_model_name(name: str) -> str:
    """The name itself, if a model or a base model may be called so. Raises ValueError otherwise."""
    for group, owner in RESERVED.items():
        if name == group or name.startswith(f"{group}__"):  # Dagster joins group and name with "__"
            raise ValueError(f"{group!r} is the group {owner}; call it something else than {name!r}")
    return _check(MODEL, name, "a model's name", MODEL_NAME_RULE)


def check_experiment_name(name: str) -> str:
    """The name itself, if an experiment may be called so. Raises ValueError otherwise."""
    return _check(_EXPERIMENT, name, "an experiment's name", EXPERIMENT_NAME_RULE)


def check_owner(owner: str) -> str:
    """The owner itself, if Dagster takes it for one. Raises ValueError otherwise."""
    return _check(_OWNER, owner, "an owner", OWNER_RULE)


def _check(pattern: re.Pattern[str], text: str, what: str, rule: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is not {what}; {rule}")
    return text


TenantName = Annotated[str, AfterValidator(check_tenant_name)]
ModelName = Annotated[str, AfterValidator(check_model_name)]
ExperimentName = Annotated[str, AfterValidator(check_experiment_name)]
Owner = Annotated[str, AfterValidator(check_owner)]

"""`tenants/<tenant>.yaml`: who owns data, models and keys."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from llm_assets.catalog.files import Entry
from llm_assets.catalog.names import OWNER_RULE, ModelName, Owner, TenantName

LEAST_RETENTION_DAYS = 183
"""Six months: Regulation (EU) 2024/1689, Art. 19(1) and 26(6)."""


RiskClass = Literal["high", "limited", "minimal"]


class Quota(Entry):
    """What a tenant may use at once."""

    gpus: int = Field(
        default=1, ge=0, le=4096, description="how many GPUs its trainings and deployments may hold"
    )


class TenantEntry(Entry):
    """One tenant. `name` is the file's name."""

    name: TenantName
    owner: Owner = Field(description=OWNER_RULE)
    models: Annotated[tuple[ModelName, ...], Field(strict=False)] = Field(
        description="the models it uses, each the name of a file in models/"
    )
    quota: Quota = Field(default=Quota(), description="what it may use at once")
    tenancy: Literal["namespace", "cluster"] = Field(
        default="namespace", description="a namespace of the shared cluster, or a cluster of its own"
    )
    retention_days: int = Field(
        default=LEAST_RETENTION_DAYS,
        ge=LEAST_RETENTION_DAYS,
        description=f"days its logs are kept, at least {LEAST_RETENTION_DAYS} (EU AI Act, Art. 19 and 26(6))",
    )
    signatures: Literal["required", "optional"] = Field(
        default="optional",
        description="whether an unsigned version may serve; an altered one never does",
    )
    risk_classes: Annotated[tuple[RiskClass, ...], Field(strict=False, min_length=1)] = Field(
        default=get_args(RiskClass),
        description="the risk classes (EU AI Act) whose models may serve this tenant",
    )

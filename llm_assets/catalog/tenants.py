"""`tenants/<tenant>.yaml`: who owns data, models and keys."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from llm_assets.catalog.files import Entry
from llm_assets.catalog.mistakes import Problem
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.names import OWNER_RULE, ModelName, Owner, TenantName

LEAST_RETENTION_DAYS = 183
"""Six months: Regulation (EU) 2024/1689, Art. 19(1) and 26(6)."""


RiskClass = Literal["high", "limited", "minimal"]

LongerRetention = Annotated[int, Field(ge=LEAST_RETENTION_DAYS)]


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
    retention_days_by_risk_class: dict[RiskClass, LongerRetention] = Field(
        default={}, description="more days for the records of models of a risk class, such as high: 3650"
    )
    legal_hold: bool = Field(
        default=False, description="true keeps all its audit records: nothing is deleted or erased"
    )
    signatures: Literal["required", "optional"] = Field(
        default="optional",
        description="whether an unsigned version may serve; an altered one never does",
    )
    risk_classes: Annotated[tuple[RiskClass, ...], Field(strict=False, min_length=1)] = Field(
        default=get_args(RiskClass),
        description="the risk classes (EU AI Act) whose models may serve this tenant",
    )


def unfit_models(tenant: TenantEntry, models: Mapping[str, ModelEntry]) -> Iterator[Problem]:
    """The models that may never serve this tenant, because of their risk class."""
    for index, name in enumerate(tenant.models):
        model = models.get(name)
        if model is None or model.serving.mode == "none":
            continue
        if model.risk_class in (
            *tenant.risk_classes,
            "prohibited",
        ):  # the model's file says what is wrong then
            continue
        allowed = ", ".join(tenant.risk_classes)
        problem = f"{name} is of risk class {model.risk_class}, but risk_classes allows {allowed}"
        yield Problem(
            place=("models", index), problem=problem, valid=f"add {model.risk_class} there, or leave it out"
        )

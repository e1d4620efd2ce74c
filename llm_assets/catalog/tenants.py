"""`tenants/<tenant>.yaml`: who owns data, models and keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from llm_assets.catalog.files import Entry
from llm_assets.catalog.issuers import (
    AUDIENCE_RULE,
    ISSUER_RULE,
    JWKS_RULE,
    Audience,
    Issuer,
    Jwks,
    ScopesClaim,
)
from llm_assets.catalog.mistakes import Problem
from llm_assets.catalog.models import ModelEntry
from llm_assets.catalog.names import OWNER_RULE, ModelName, Owner, TenantName

LEAST_RETENTION_DAYS = 183
"""Six months: Regulation (EU) 2024/1689, Art. 19(1) and 26(6)."""


_AUDIENCE, _JWKS = ISSUER_PLACES = (("jwt", "audience"), ("jwt", "jwks"))
"""The fields by which two tenants with one issuer can be at odds."""

RiskClass = Literal["high", "limited", "minimal"]

LongerRetention = Annotated[int, Field(ge=LEAST_RETENTION_DAYS)]


class Quota(Entry):
    """What a tenant may use at once."""

    gpus: int = Field(
        default=1, ge=0, le=4096, description="how many GPUs its trainings and deployments may hold"
    )


class Limits(Entry):
    """How much a tenant may ask through the gateway, with all its keys together."""

    requests_per_minute: int | None = Field(default=None, ge=1, description="most requests in a minute")
    concurrent_requests: int | None = Field(default=None, ge=1, description="most requests at once")
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="most tokens, asked and answered, in a minute"
    )


class Jwt(Entry):
    """Whose JSON Web Tokens the gateway takes for this tenant, besides API keys."""

    issuer: Issuer = Field(description=ISSUER_RULE)
    audience: Audience = Field(description=AUDIENCE_RULE)
    scopes_claim: ScopesClaim = Field(
        default="scope",
        description="the claim that holds model:<name>, model:*, risk:<class> and risk:*",
    )
    jwks: Jwks | None = Field(default=None, description=JWKS_RULE)


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
    limits: Limits = Field(default=Limits(), description="how much it may ask through the gateway")
    jwt: Jwt | None = Field(
        default=None, description="the OpenID Connect issuer whose tokens count; without one only API keys do"
    )


FOR_A_CLUSTER = ("quota", "tenancy")
"""What only a cluster can keep: on one machine all tenants share its processor and its engines."""


def without_effect(tenants: Iterable[TenantEntry]) -> str | None:
    """What the tenants' files say and one machine does not read, as a sentence; None if nothing."""
    tenants = tuple(tenants)
    users = {field: sum(field in each.model_fields_set for each in tenants) for field in FOR_A_CLUSTER}
    said = [f"`{field}` (in {count} of {len(tenants)} tenants)" for field, count in users.items() if count]
    if not said:
        return None
    return f"{' and '.join(said)} have no effect on one machine; the Kubernetes profile will read them."


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


def shared_issuers(tenants: Iterable[TenantEntry]) -> Iterator[tuple[str, Problem]]:
    """By tenant: where a token would be good for two, or one issuer has its keys at two places."""
    first: dict[tuple[str, str], str] = {}
    told: dict[str, TenantEntry] = {}
    for tenant in tenants:
        if tenant.jwt is None:
            continue
        issuer, audience, jwks = tenant.jwt.issuer, tenant.jwt.audience, tenant.jwt.jwks
        other = first.setdefault((issuer, audience), tenant.name)
        if other != tenant.name:
            problem = f"tokens of {issuer} for {audience!r} are those of {other} already"
            valid = "an audience of its own"
            yield tenant.name, Problem(place=_AUDIENCE, problem=problem, valid=valid)
        known = told.setdefault(issuer, tenant)
        if known.jwt and known.jwt.jwks != jwks:
            problem = (
                f"{known.name} says that the keys of {issuer} are at {known.jwt.jwks or 'its discovery'}"
            )
            valid = "one issuer has one set of keys"
            yield tenant.name, Problem(place=_JWKS, problem=problem, valid=valid)

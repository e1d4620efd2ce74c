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


_SHARED, _AUDIENCE, _JWKS = ISSUER_PLACES = (("jwt", "shared"), ("jwt", "audience"), ("jwt", "jwks"))
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
    shared: bool = Field(
        default=False,
        description="true lets other tenants that say so take its tokens, each for an audience of its own",
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


def issuer_conflicts(wanted: Mapping[str, Jwt | None], in_force: Mapping[str, Jwt]) -> dict[str, Problem]:
    """By tenant: why what its file says of an issuer cannot count.

    An issuer is that of the tenant that named it first, until that one names it no more. Where all of its
    tenants say that it is shared, each has an audience of its own, and they say the same of its keys. Of
    several new ones the first by name is the first.

    Args:
        wanted: What the files say that are to count now; None where one names no issuer.
        in_force: What counts until then, of all tenants that are there, whatever their files say.
    """
    claims, waiting = dict(in_force), dict(wanted)
    settled: list[str] | None = None
    while settled != []:
        settled = [name for name, jwt in sorted(waiting.items()) if _claimed(name, jwt, claims)]
        for name in settled:
            del waiting[name]
    return {
        name: problem for name, jwt in waiting.items() if jwt and (problem := _conflict(name, jwt, claims))
    }


def _claimed(name: str, jwt: Jwt | None, claims: dict[str, Jwt]) -> bool:
    """Whether nobody else's claim is in the way; then it is this tenant's, in the place of what it had."""
    if jwt is None:
        claims.pop(name, None)
        return True
    if _conflict(name, jwt, claims):
        return False
    claims[name] = jwt
    return True


def _conflict(name: str, jwt: Jwt, claims: Mapping[str, Jwt]) -> Problem | None:
    """Where a token would be good for two tenants, or one issuer had its keys at two places."""
    for other, known in claims.items():
        if other == name or known.issuer != jwt.issuer:
            continue
        if not (known.shared and jwt.shared):
            alone = "its file" if not known.shared else "this file"
            problem = (
                f"{jwt.issuer} is the issuer of {other} already, and {alone} does not say that it is shared"
            )
            return Problem(
                place=_SHARED, problem=problem, valid="an issuer of its own, or true in the files of both"
            )
        if known.audience == jwt.audience:
            problem = f"tokens of {jwt.issuer} for {jwt.audience!r} are those of {other} already"
            return Problem(place=_AUDIENCE, problem=problem, valid="an audience of its own")
        if known.jwks != jwt.jwks:
            problem = f"{other} says that the keys of {jwt.issuer} are at {known.jwks or 'its discovery'}"
            return Problem(place=_JWKS, problem=problem, valid="one issuer has one set of keys")
    return None

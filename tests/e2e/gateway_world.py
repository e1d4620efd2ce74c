"""A world of tenants, models, keys and tokens, requests made up in it, and what may come of each: the oracle.

The oracle is written from what the gateway promises (docs/reference/keys.md), not from how it does it. It has
no state and asks nothing: it knows of a request what was put into it.
"""

import base64
import hashlib
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_assets.gateway.tenants import issuer_of
from tests.integration.gateway.whole_gateways import Deployment
from tests.servers.oidc_issuer import Issuer, hand_signed

DOMAIN = "localhost"
CLASSES = {"support_bot": "limited", "screening": "high", "triage": "minimal", "idle": "minimal"}
MODELS_OF = {
    "team-a": ("support_bot", "screening", "idle"),
    "team-b": ("support_bot", "screening", "triage"),
    "team-a-b": ("support_bot", "triage"),
    "t": ("screening", "triage"),
    "v1": ("support_bot",),
}
RISK_CLASSES_OF = {"team-b": ("limited", "minimal"), "v1": ("minimal", "limited", "high")}
ALL_CLASSES = ("minimal", "limited", "high")
NAMES = {"v1": ("production",), "v2": ("candidate",)}
AUDIENCES = {"t": "team-a"}  # the same word for another tenant of another issuer
GONE = "team-gone"
GOOD_SHARE = 0.6  # of the requests have a credential that is good for something

LIVE = tuple(
    Deployment(tenant=tenant, model=model, version=version, weight=weight, names=NAMES[version])
    for tenant, models in MODELS_OF.items()
    for model in models
    if model != "idle"
    for version, weight in (("v1", 70), ("v2", 30))
)
BY_DIGEST = {each.digest: each for each in LIVE}


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What stands in Authorization, and what it is good for: nothing where `tenants` is empty."""

    value: str | None
    kind: str
    tenants: frozenset[str] = frozenset()
    models: frozenset[str] | None = None  # None is all
    risk_classes: frozenset[str] | None = None

    def may_ask(self, tenant: str, model: str) -> bool:
        """Whether it is good for this model of this tenant."""
        risk_class = CLASSES.get(model)
        return (
            tenant in self.tenants
            and model in MODELS_OF.get(tenant, ())
            and risk_class in RISK_CLASSES_OF.get(tenant, ALL_CLASSES)
            and (self.models is None or model in self.models)
            and (self.risk_classes is None or risk_class in self.risk_classes)
        )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What may come of a request: these statuses and, where it is answered, one of these versions."""

    statuses: frozenset[int]
    versions: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it goes over the wire, with what was meant by it."""

    method: str
    target: str
    host: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    credential: Credential
    tenant: str | None  # whose door it is; None where it is nobody's
    exact: bool  # whether the door is spelled as documented: then the answer is known exactly
    endpoint: bool
    model: str | None  # as the body means it; None where the body is wrong
    version: str | None = None

    def as_bytes(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            lines += [f"Content-Length: {len(self.body)}", "Content-Type: application/json"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def expected(self) -> Expected:
        """The documented order: door, credential, body, rights, what is live."""
        if self.tenant is None or not self.endpoint:
            return Expected(statuses=frozenset({400, 401, 404, 405}))
        if self.tenant not in self.credential.tenants:
            return Expected(statuses=frozenset({401}))
        if self.method == "GET":
            return Expected(statuses=frozenset({200}))
        if self.model is None:
            return Expected(statuses=frozenset({400}))
        return self._of_the_model(self.tenant, self.model)

    def _of_the_model(self, tenant: str, model: str) -> Expected:
        if model not in MODELS_OF[tenant]:
            return Expected(statuses=frozenset({404}))
        if not self.credential.may_ask(tenant, model):
            return Expected(statuses=frozenset({403}))
        if model == "idle":
            return Expected(statuses=frozenset({503}))
        if self.version is None:
            return Expected(statuses=frozenset({200}), versions=frozenset(NAMES))
        named = {version for version, names in NAMES.items() if self.version in (version, *names)}
        return Expected(statuses=frozenset({200 if named else 404}), versions=frozenset(named))


def new_key() -> tuple[str, str, str]:
    """Id, text and hash of an API key."""
    key_id = base64.b32encode(random.randbytes(8)).decode().lower()[:12]
    text = f"llma_{key_id}_{base64.urlsafe_b64encode(random.randbytes(32)).decode().rstrip('=')}"
    return key_id, text, hashlib.sha256(text.encode()).hexdigest()


@dataclass(kw_only=True)
class World:
    """Everybody in it, from a seed; `events` are what the gateway is told."""

    seed: int
    issuer: Issuer
    other: Issuer
    key_events: list[dict[str, Any]] = field(default_factory=list)
    credentials: list[Credential] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for tenant in (*MODELS_OF, GONE):
            self._keys_of(tenant)
        self._tokens()
        self._nonsense()

    def tenant_events(self) -> list[dict[str, Any]]:
        """Lines of tenants.jsonl."""
        issuers = {"team-a": self.issuer, "team-b": self.issuer, "team-a-b": self.other, "t": self.other}
        lines: list[dict[str, Any]] = []
        for tenant, models in MODELS_OF.items():
            told = issuers.get(tenant)
            jwt: dict[str, Any] | None = None
            if told:
                own = {"issuer": told.name, "audience": AUDIENCES.get(tenant, tenant)}
                jwt = own | {"scopes_claim": "scope", "jwks": None}
                jwt["provider"] = issuer_of(jwt, Path()).provider
            classes = {model: {"risk_class": CLASSES[model]} for model in models}
            allowed = list(RISK_CLASSES_OF.get(tenant, ALL_CLASSES))
            lines.append(
                {"tenant": tenant, "models": classes, "risk_classes": allowed, "limits": None, "jwt": jwt}
            )
        gone = {
            "tenant": GONE,
            "models": {"support_bot": {"risk_class": "limited"}},
            "limits": None,
            "jwt": None,
        }
        return [*lines, {**gone, "risk_classes": list(ALL_CLASSES)}, {"tenant": GONE, "gone": True}]

    def _key(
        self,
        tenant: str,
        *,
        good: bool = True,
        models: tuple[str, ...] | None = None,
        risk_classes: tuple[str, ...] | None = None,
        expires: float | None = None,
        revoked: bool = False,
    ) -> str:
        key_id, text, digest = new_key()
        base = {"event": "created", "id": key_id, "hash": digest, "tenant": tenant, "name": "k", "actor": "k"}
        rights = {"models": models, "risk_classes": risk_classes, "limits": None}
        self.key_events.append({**base, **rights, "created": time.time(), "expires": expires, "by": "tests"})
        if revoked:
            self.key_events.append({"event": "revoked", "id": key_id, "at": time.time(), "by": "tests"})
        self.credentials.append(
            Credential(
                value=f"Bearer {text}",
                kind="key",
                tenants=frozenset({tenant} & MODELS_OF.keys()) if good else frozenset(),
                models=None if models is None else frozenset(models),
                risk_classes=None if risk_classes is None else frozenset(risk_classes),
            )
        )
        return text

    def _keys_of(self, tenant: str) -> None:
        text = self._key(tenant)
        self._key(tenant, models=("support_bot",))
        self._key(tenant, models=("screening", "triage", "nothing"))
        self._key(tenant, models=())
        self._key(tenant, risk_classes=("limited",))
        self._key(tenant, risk_classes=("minimal", "high"), models=("screening", "support_bot"))
        self._key(tenant, expires=time.time() + 3600)
        self._key(tenant, expires=time.time() - 1, good=False)
        self._key(tenant, revoked=True, good=False)
        _, other, _ = new_key()
        secret = text[len(f"llma_{other[5:17]}_") :]
        for value in (
            f"Bearer {text[:-1]}{'A' if text[-1] != 'A' else 'B'}",  # one character of the secret
            f"Bearer {other[:18]}{secret}",  # the secret of one with the id of another
            f"Bearer {text} ",
            f"Bearer  {text}",
            f"bearer {text}",
            f"Token {text}",
            f"Basic {base64.b64encode(text.encode()).decode()}",
            f"Bearer {text.upper()}",
            f"Bearer {text},{text}",
            f"Bearer {hashlib.sha256(text.encode()).hexdigest()}",
            f"Bearer llma_{text[5:17]}_",
            text,
        ):
            same = (f"Bearer {text} ", f"Bearer  {text}", f"bearer {text}")
            good = frozenset({tenant} & MODELS_OF.keys()) if value in same else frozenset()
            self.credentials.append(Credential(value=value, kind="key", tenants=good))

    def _token(self, token: str, *tenants: str, scope: Any = None) -> None:
        models, classes = rights_of(scope)
        self.credentials.append(
            Credential(
                value=f"Bearer {token}",
                kind="token",
                tenants=frozenset(tenants),
                models=models,
                risk_classes=classes,
            )
        )

    def _tokens(self) -> None:
        one, other, now = self.issuer, self.other, int(time.time())
        for scope in SCOPES:
            for tenant in ("team-a", "team-b"):
                self._token(one.token(aud=tenant, scope=scope), tenant, scope=scope)
            self._token(other.token(aud="team-a-b", scope=scope), "team-a-b", scope=scope)
        everything = "model:* risk:*"
        both = one.token(aud=["team-a", "x", "team-b"], scope=everything)
        self._token(both, "team-a", "team-b", scope=everything)
        self._token(other.token(aud="team-a", scope=everything), "t", scope=everything)
        for bad in (
            one.token(aud="team-a-b", scope=everything),
            one.token(aud="t", scope=everything),
            one.token(aud=None, scope=everything),
            one.token(aud="team-a", scope=everything, exp=now - 60),
            one.token(aud="team-a", scope=everything, exp=None),
            one.token(aud="team-a", scope=everything, nbf=now + 3600),
            one.token(aud="team-a", scope=everything, sub=None),
            one.token(aud="team-a", scope=everything, iss=other.name),
            other.token(aud="team-a", scope=everything, iss=one.name),
            hand_signed({"alg": "none"}, self._claims(), None),
            hand_signed({"alg": "HS256", "kid": one.key.kid}, self._claims(), one.key.as_pem(private=False)),
            "ey",
        ):
            self._token(bad)

    def _claims(self) -> dict[str, Any]:
        ends = int(time.time()) + 3600
        return {"iss": self.issuer.name, "aud": "team-a", "sub": "e", "exp": ends, "scope": "model:* risk:*"}

    def _nonsense(self) -> None:
        for value in (
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer null",
            "Bearer the-engine's-own-key",
            "Bearer *",
        ):
            self.credentials.append(Credential(value=value, kind="none"))

    def request(self) -> Request:
        """The next one."""
        chance = self.random
        good = chance.random() < GOOD_SHARE
        credential = chance.choice(
            [each for each in self.credentials if each.tenants] if good else self.credentials
        )
        named = [*sorted(credential.tenants)] * 24 + [*MODELS_OF, GONE, "team-x", "TEAM-A", "team_a", "-"]
        aimed = chance.choice(named)
        host, prefix, tenant, exact = self._door(aimed)
        method, path, endpoint, straight = self._endpoint()
        body, model, version = self._body(tenant or aimed)
        get = path == "/v1/models"
        return Request(
            method=method,
            target=prefix + path,
            host=host,
            headers=(*self._authorization(credential), *self._headers(aimed)),
            body=b"" if get or method == "GET" else body,
            credential=credential,
            tenant=tenant if tenant in MODELS_OF else None if tenant is None else tenant,
            exact=exact and straight,
            endpoint=endpoint,
            model=model,
            version=version,
        )

    def _authorization(self, credential: Credential) -> list[tuple[str, str]]:
        return [] if credential.value is None else [("Authorization", credential.value)]

    def _door(self, aimed: str) -> tuple[str, str, str | None, bool]:
        """Host, prefix of the path, whose door that is, and whether it is spelled as documented."""
        chance = self.random
        own, elsewhere = (
            f"{aimed}.llm.{DOMAIN}",
            chance.choice(["127.0.0.1", "gateway.example.com", "localhost"]),
        )
        another = chance.choice([each for each in MODELS_OF if each != aimed])
        plain = aimed.islower() and "_" not in aimed and aimed != "-"
        doors: list[tuple[str, str, str | None, bool]] = [
            (own, "", aimed, plain),
            (f"{own}:8080", "", aimed, plain),
            (elsewhere, f"/t/{aimed}", aimed, plain),
            (f"{elsewhere}:8080", f"/t/{aimed}", aimed, plain),
            (own, f"/t/{aimed}", aimed, plain),
        ]
        if chance.random() < 0.85:
            return chance.choice(doors)
        tricks: list[tuple[str, str, str | None, bool]] = [
            (own, f"/t/{another}", None, True),
            (f"{another}.llm.{DOMAIN}", f"/t/{aimed}", None, True),
            (own.upper(), "", aimed.lower(), False),
            (elsewhere, "", None, True),
            (f"llm.{DOMAIN}", "", None, False),
            (f".llm.{DOMAIN}", "", None, False),
            (f"x.{own}", "", None, False),
            (f"{own}.evil.example.com", "", None, True),
            (f"{own}.", "", None, False),
            (f"{own}%00.{another}.llm.{DOMAIN}", "", None, False),
            (f"{another}.llm.{DOMAIN}@{own}", "", None, False),
            (elsewhere, f"/t/{aimed}/t/{another}", None, False),
            (elsewhere, f"/t/{another}/../{aimed}", None, False),
            (own, f"/v1/../t/{another}", None, False),
            (elsewhere, f"//t/{aimed}", None, False),
            (elsewhere, f"/t//{aimed}", None, False),
            (elsewhere, f"/t/{aimed}%2f..%2f{another}", None, False),
            (elsewhere, f"/t/{aimed};{another}", None, False),
            (elsewhere, f"/T/{aimed}", None, False),
            (elsewhere, f"/t/{aimed}\\..\\{another}", None, False),
            (elsewhere, "/t/%74eam-a", None, False),
            (elsewhere, f"http://{another}.llm.{DOMAIN}/t/{aimed}", None, False),
        ]
        return chance.choice(tricks)

    def _endpoint(self) -> tuple[str, str, bool, bool]:
        """Method, path, whether it is an endpoint, and whether it is spelled as documented."""
        chance = self.random
        if chance.random() < 0.9:
            path = chance.choice(["/v1/chat/completions"] * 6 + ["/v1/completions", "/v1/models"])
            return ("GET" if path == "/v1/models" else "POST"), path, True, True
        tricks = [
            ("POST", "/v1/chat/completions?model=screening&tenant=team-b", True, True),
            ("POST", "/v1/chat/completions#/t/team-b", False, False),
            ("POST", "/v1//chat/completions", False, False),
            ("POST", "/v1/./chat/../chat/completions", False, False),
            ("POST", "/v1/chat/completions/", False, True),
            ("POST", "/V1/chat/completions", False, True),
            ("POST", "/v1/chat/completions%00", False, False),
            ("POST", "/v1/chat%2fcompletions", False, False),
            ("POST", "/v1/models", False, True),
            ("GET", "/v1/chat/completions", False, True),
            ("PUT", "/v1/chat/completions", False, True),
            ("POST", "/metrics", False, True),
            ("GET", "/metrics", False, True),
            ("POST", "/load_lora_adapter", False, True),
            ("POST", "/v1/load_lora_adapter", False, True),
            ("GET", "/v1/models/support_bot/x", False, True),
            ("GET", "/server_info", False, True),
        ]
        return chance.choice(tricks)

    def _body(self, tenant: str) -> tuple[bytes, str | None, str | None]:
        """A body, and the model and version that it means; None where it is wrong."""
        chance = self.random
        model = chance.choice([*MODELS_OF.get(tenant, ())] * 8 + [*CLASSES, "nothing"])
        version = chance.choice([None] * 5 + ["production", "candidate", "previous", "v1", "v2", "V1"])
        named = model if version is None else f"{model}@{version}"
        told: dict[str, Any] = {
            "model": named,
            "messages": [{"role": "user", "content": "hi"}],
            "prompt": "hi",
        }
        if chance.random() < 0.15:
            told |= {"stream": True, "stream_options": {"include_usage": True}}  # which brings the digest
        if chance.random() < 0.75:
            return json.dumps(told).encode(), model, version
        return self._odd_body(told, model, version)

    def _odd_body(
        self, told: dict[str, Any], model: str, version: str | None
    ) -> tuple[bytes, str | None, str | None]:
        chance, named = self.random, told["model"]
        other = chance.choice([each for each in CLASSES if each != model])
        rest = json.dumps({key: value for key, value in told.items() if key != "model"})[1:]
        spelled = "".join(f"\\u{ord(character):04x}" for character in named)
        escaped = f'"\\u006d\\u006f\\u0064\\u0065\\u006c": "{named}"'
        right: list[tuple[bytes, str | None, str | None]] = [
            (f'{{"model": "{spelled}", {rest}'.encode(), model, version),
            (f"{{{escaped}, {rest}".encode(), model, version),
            (f'{{"nested": {{"model": "{other}"}}, "model": "{named}", {rest}'.encode(), model, version),
            (f'{{"Model": "{other}", "model": "{named}", {rest}'.encode(), model, version),
            (json.dumps({**told, "tenant": "team-b", "deployment": LIVE[0].id}).encode(), model, version),
        ]
        unknown = [
            f"{named} ",
            f" {named}",
            named.upper(),
            f"team-b/{named}",
            f"../{named}",
            f"{model}@v1@v2",
        ]
        unknown += [f"{named}\u0000", f"{named}\n", f"{model}@", f"@{model}", f"{named}\u200b", ""]
        strange = [(json.dumps({**told, "model": each}).encode(), *_parts(each)) for each in unknown]
        wrong: list[tuple[bytes, str | None, str | None]] = [
            (f'{{"model": "{named}", "model": "{other}", {rest}'.encode(), None, None),
            (f'{{"model": "{other}", {escaped}, {rest}'.encode(), None, None),
            (json.dumps({**told, "model": [named]}).encode(), None, None),
            (json.dumps({**told, "model": 7}).encode(), None, None),
            (json.dumps({**told, "model": None}).encode(), None, None),
            (f"{{{rest}".encode(), None, None),
            (json.dumps(told).encode()[:-1], None, None),
            (json.dumps(told).encode() + b"{}", None, None),
            (b"\xff\xfe" + json.dumps(told).encode(), None, None),
            (f"model={named}".encode(), None, None),
            (json.dumps([told]).encode(), None, None),
        ]
        return chance.choice([*right, *right, *strange, *wrong])

    def _headers(self, aimed: str) -> list[tuple[str, str]]:
        """Headers that mean nothing to the gateway, whatever they try."""
        chance, live = self.random, self.random.choice(LIVE)
        other = chance.choice([each for each in MODELS_OF if each != aimed])
        tricks = [
            ("x-llm-tenant", other),
            ("x-llm-deployment", live.id),
            ("x-llm-digest", live.digest),
            ("x-llm-affinity", f"user-{chance.randrange(99)}"),
            ("x-llm-subject", f"../{other}"),
            ("x-deployment", live.id),
            ("x-forwarded-host", f"{other}.llm.{DOMAIN}"),
            ("x-original-url", f"/t/{other}/v1/chat/completions"),
            ("x-rewrite-url", f"/t/{other}/v1/chat/completions"),
            ("x-envoy-original-path", f"/t/{other}/v1/chat/completions"),
            ("x-http-method-override", "GET"),
            ("x-envoy-upstream-alt-stat-name", "x"),
            ("x-api-key", "the-engine's-own-key"),
            ("api-key", "the-engine's-own-key"),
            ("cookie", "access_token=eyJ"),
            ("x-request-id", "mine"),
            ("forwarded", f"host={other}.llm.{DOMAIN}"),
        ]
        return chance.sample(tricks, chance.choice([0, 0, 0, 1, 2, 3]))


SCOPES: tuple[Any, ...] = (
    "model:* risk:*",
    "model:support_bot risk:limited",
    "openid model:screening model:triage risk:high",
    ["model:support_bot", "risk:limited", "risk:minimal"],
    "model:*",
    "risk:*",
    "",
    None,
    "read-model:* risk:*",
    "model:support risk:*",
    "model:SUPPORT_BOT risk:*",
)


def _parts(named: str) -> tuple[str, str | None]:
    """Model and version of a name: `model@version`, where both are something."""
    model, at, version = named.partition("@")
    return (model, version) if at and model and version else (named, None)


def rights_of(scope: Any) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """The models and risk classes of a scope claim: nothing unless it is said; `*` is all."""
    listed = scope if isinstance(scope, list) else (scope or "").split(" ")
    found: dict[str, set[str]] = {"model": set(), "risk": set()}
    for each in listed:
        kind, _, name = each.partition(":")
        if kind in found:
            found[kind].add(name)
    models, classes = (None if "*" in names else frozenset(names) for names in found.values())
    return models, classes

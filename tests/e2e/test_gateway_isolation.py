"""Ten thousand made-up requests at the whole gateway: none comes out at another tenant, model or version."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_assets.gateway.tenants import issuers_of, tenant_lines
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.jwt_filter import jwt_filter, write_jwt_filter
from resources.gateway.key_sets import fetch_key_set
from tests.e2e.gateway_world import BY_DIGEST, CLASSES, LIVE, MODELS_OF, Request, World
from tests.integration.gateway.whole_gateways import WholeGateway, whole_gateway
from tests.servers.oidc_issuer import issuing

REQUESTS = 10_000
AT_ONCE = 24
MOST_S = 40
SEED = 20261122


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, WholeGateway]]:
    with issuing() as issuer, issuing() as other:
        world = World(seed=SEED, issuer=issuer, other=other)
        home = tmp_path_factory.mktemp("world")
        with whole_gateway(home, LIVE, strangers_a_minute=10 * REQUESTS) as gateway:
            gateway.tenants.append(*world.tenant_events())
            gateway.keys.append(*world.key_events)
            issuers = issuers_of(tenant_lines(gateway.tenants), Path())
            keys = {each.provider: fetch_key_set(each) for each in issuers}
            write_jwt_filter(gateway.jwt_file, jwt_filter(issuers, keys))
            wait_until_tokens_count(gateway, world)
            yield world, gateway


def wait_until_tokens_count(gateway: WholeGateway, world: World) -> None:
    """Envoy takes the new key sets in its own time."""
    token = next(each for each in world.credentials if each.kind == "token" and each.tenants == {"team-a"})
    head = f"GET /t/team-a/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {token.value}\r\n\r\n"
    deadline = time.monotonic() + 10
    while asyncio.run(_one(gateway.port, head.encode())).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def _one(port: int, content: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        return await _answer(reader)
    finally:
        await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(status=int(head[0].split(" ")[1]), headers=headers, body=body)


async def _ask_all(port: int, requests: list[Request]) -> list[tuple[Request, Answer]]:
    """Sends them over connections that stay open, each its own share, one after another."""
    answers: list[tuple[Request, Answer]] = []

    async def share(own: list[Request]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in own:
            writer.write(request.as_bytes())
            answer = await _answer(reader)
            answers.append((request, answer))
            if answer.headers.get("connection") == "close":
                await _closed(writer)
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _closed(writer)

    await asyncio.gather(*(share(requests[first::AT_ONCE]) for first in range(AT_ONCE)))
    return answers


async def _told_of_the_last(port: int) -> None:
    """The gateway writes down each second what it counted of strangers, when it is asked for its health."""
    for _ in range(2):
        await asyncio.sleep(1.1)
        await _one(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


def faults_of(request: Request, answer: Answer) -> Iterator[str]:
    """What must not be: an answer from elsewhere, and, at a door spelled as documented, another answer."""
    if answer.status == 200 and request.method == "GET":
        yield from _faults_of_the_list(request, answer)
    elif answer.status == 200:
        yield from _faults_of_the_origin(request, answer)
    if request.exact and answer.status not in request.expected().statuses:
        yield f"status {answer.status}, not {sorted(request.expected().statuses)}"
    if answer.status != 200 and not answer.body.startswith(b'{"error":{'):
        yield "an error in another shape"


def _faults_of_the_list(request: Request, answer: Answer) -> Iterator[str]:
    listed = {each["id"].partition("@")[0] for each in json.loads(answer.body)["data"]}
    owners = {each["owned_by"] for each in json.loads(answer.body)["data"]}
    for tenant in owners:
        allowed = {model for model in MODELS_OF[tenant] if request.credential.may_ask(tenant, model)}
        if listed - allowed or (request.exact and listed != allowed - {"idle"}):
            yield f"lists {sorted(listed)} where {sorted(allowed)} may be asked"


def _faults_of_the_origin(request: Request, answer: Answer) -> Iterator[str]:
    """The digest in the body is the backend's own word; the headers must say the same."""
    text = answer.body.decode()
    digests = {part[:71] for part in text.split('"system_fingerprint":"')[1:]}
    if len(digests) != 1 or not digests <= BY_DIGEST.keys():
        yield f"answered by {digests}"
        return
    origin = BY_DIGEST[digests.pop()]
    if not request.credential.may_ask(origin.tenant, origin.model):
        yield f"answered by {origin.id}, which this credential may not ask"
    if request.exact and (origin.tenant, origin.model) != (request.tenant, request.model):
        yield f"answered by {origin.id}, not {request.tenant} {request.model}"
    if request.exact and origin.version not in request.expected().versions:
        yield f"answered by {origin.id}, not version {request.version}"
    receipt = {"x-llm-model": origin.model, "x-llm-version": origin.version, "x-llm-digest": origin.digest}
    for name, value in {**receipt, "x-llm-deployment": origin.id}.items():
        if answer.headers.get(name) != value:
            yield f"{name} says {answer.headers.get(name)}, answered by {origin.id}"


def recorded(gateway: WholeGateway) -> Counter[tuple[str, int]]:
    """How many requests the record has of each id; those that were counted have the id of their first."""
    files = sorted((gateway.folder / "spool").glob("*.jsonl"))
    lines = [json.loads(line) for each in files for line in each.read_text().splitlines()]
    ends = {line["id"]: line["status"] for line in lines if line["e"] == "response"}
    found: Counter[tuple[str, int]] = Counter()
    for line in lines:
        if line["e"] == "request":
            found[line["id"], ends[line["id"]]] += 1
        elif line["e"] == "denied":
            found[line["id"], line["status"]] += line.get("count", 1)
    return found


def lost_from_the_record(answers: list[tuple[Request, Answer]], found: Counter[tuple[str, int]]) -> list[str]:
    """Where the record has more or fewer than were asked, and answers without the record that they name."""
    told = Counter((answer.headers["x-request-id"], answer.status) for _, answer in answers)
    asked, known = (Counter(status for _, status in each.elements()) for each in (told, found))
    faults = [
        f"{asked[status]} requests were answered {status}, the record has {known[status]}"
        for status in asked | known
        if asked[status] != known[status]
    ]
    faults += [f"{count} requests were told the id {each}" for each, count in told.items() if count > 1]
    refused = {each for each in told if each[1] != 200}
    own = len(refused & found.keys())
    if own < min(
        GatewaySettings.refusals_recorded, len(refused)
    ):  # beyond the first of a key they are counted
        faults.append(f"{own} of {len(refused)} refused requests have a record of their own")
    return faults + [f"{each} has no record" for each in told if each[1] == 200 and each not in found]


def test_none_of_ten_thousand_requests_crosses_and_none_is_lost(world: tuple[World, WholeGateway]) -> None:
    made, gateway = world
    before = recorded(gateway)
    requests = [made.request() for _ in range(REQUESTS)]
    started = time.monotonic()
    answers = asyncio.run(_ask_all(gateway.port, requests))
    taken_s = time.monotonic() - started
    asyncio.run(_told_of_the_last(gateway.port))
    lost = lost_from_the_record(answers, recorded(gateway) - before)
    assert not lost, "\n".join(lost[:5])
    faults = [(fault, request, answer) for request, answer in answers for fault in faults_of(request, answer)]
    statuses = Counter(answer.status for _, answer in answers)
    print(f"{len(answers):,} requests in {taken_s:.1f} s: {dict(sorted(statuses.items()))}")
    assert not faults, "\n\n".join(f"{f}\n{r}\n{a}" for f, r, a in faults[:5])
    assert taken_s < MOST_S
    assert len(answers) == REQUESTS
    assert statuses.keys() >= {200, 400, 401, 403, 404, 503}
    assert statuses[200] > REQUESTS / 10, "an oracle that lets nothing pass proves nothing"
    answered = {request.tenant for request, answer in answers if answer.status == 200}
    assert answered >= MODELS_OF.keys()
    assert {request.model for request, answer in answers if answer.status == 200} >= CLASSES.keys() - {"idle"}


def test_the_oracle_finds_an_answer_that_crossed(world: tuple[World, WholeGateway]) -> None:
    """Two routes are swapped behind the gateway's back; the same requests must now have faults."""
    made, gateway = world
    lines = {(line["tenant"], line["model"]): line for line in gateway.routes.events()}
    one, other = lines["team-a", "support_bot"], lines["team-b", "support_bot"]
    gateway.routes.append({**one, "backends": other["backends"]})
    requests = [made.request() for _ in range(1000)]
    answers = asyncio.run(_ask_all(gateway.port, requests))
    gateway.routes.append(one)
    assert any("answered by team-b" in fault for pair in answers for fault in faults_of(*pair))

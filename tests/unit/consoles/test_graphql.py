"""A mutation is found wherever a server may look for a document."""

import json
from urllib.parse import urlencode

import pytest

from resources.consoles.gate import Question
from resources.consoles.graphql import changes, message_changes

MUTATION = 'mutation M { terminateRun(runId: "x") { __typename } }'
QUERIES = [
    "{ version }",
    "query Q { version }",
    'subscription S { capturedLogs(logKey: ["mutation"]) { stdout } }',
    "# mutation\n{ version }",
    '{ assetNodes(group: "mutation { x }") { id } }',
    "query mutation { version }",
    "fragment mutation on Query { version } query Q { ...mutation }",
]
MUTATIONS = [
    MUTATION,
    f"query Q {{ version }} {MUTATION}",
    f"{MUTATION} query Q {{ version }}",
    "mutation{a}",
    "\ufeffmutation { a }",
    "#\nmutation\n{ a }",
    "mutation ($x: Int = 1) @skip(if: false) { a }",
]


def posted(content: object) -> Question:
    return Question(method="POST", path="/graphql", query="", body=json.dumps(content).encode())


def ways(document: str) -> list[Question]:
    query = urlencode({"query": document})
    return [
        posted({"query": document}),
        posted({"query": document, "operationName": "Q"}),
        posted([{"query": "{ version }"}, {"query": document}]),
        Question(method="POST", path="/graphql", query="", body=document.encode()),
        Question(method="POST", path="/graphql", query=query, body=b""),
        Question(method="GET", path="/graphql", query=query, body=b""),
        Question(method="GET", path="/graphql", query=f"query=%7Ba%7D&{query}", body=b""),
        Question(method="GET", path="/graphql", query=f"{query}&query=%7Ba%7D", body=b""),
        Question(method="POST", path="/graphql", query="", body=query.encode()),
        Question(
            method="POST", path="/graphql", query="", body=json.dumps({"query": document}).encode("utf-16")
        ),
    ]


@pytest.mark.parametrize("document", MUTATIONS)
def test_a_mutation_is_found(document: str) -> None:
    assert all(changes(question) for question in ways(document))
    for kind in ("start", "subscribe"):
        assert message_changes(json.dumps({"type": kind, "id": "1", "payload": {"query": document}}))


@pytest.mark.parametrize("document", QUERIES)
def test_a_query_is_none(document: str) -> None:
    assert not any(changes(question) for question in ways(document))
    for kind in ("start", "subscribe"):
        assert not message_changes(json.dumps({"type": kind, "id": "1", "payload": {"query": document}}))


@pytest.mark.parametrize(
    "text", ['{"type": "connection_init", "payload": {}}', '{"type": "stop", "id": "1"}']
)
def test_what_the_protocol_says_beside_passes(text: str) -> None:
    assert not message_changes(text)


@pytest.mark.parametrize(
    "text", ["", "x", "[]", '{"type": "start"}', '{"type": "start", "payload": {"query": 1}}',
             json.dumps({"type": "other", "payload": {"query": MUTATION}})],
)  # fmt: skip
def test_a_message_that_cannot_be_read_does_not_pass(text: str) -> None:
    assert message_changes(text)

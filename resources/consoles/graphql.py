"""Whether a GraphQL request only reads: read with the library that executes it."""

import json
from collections.abc import Iterator
from urllib.parse import parse_qsl

from resources.consoles.gate import Question

START = ("start", "subscribe")
"""Messages of the web-socket protocols graphql-ws and graphql-transport-ws that hold an operation."""


def changes(question: Question) -> bool:
    """Whether any document in the request, wherever a server may look for one, holds a mutation."""
    return any(_holds_mutation(text) for text in _documents(question))


def message_changes(text: str) -> bool:
    """Whether a message over a web socket holds a mutation, or cannot be read."""
    try:
        message = json.loads(text)
    except ValueError:
        return True
    if not isinstance(message, dict):
        return True
    if message.get("type") not in START:
        return "payload" in message and message.get("type") != "connection_init"
    payload = message.get("payload")
    query = payload.get("query") if isinstance(payload, dict) else None
    return not isinstance(query, str) or _holds_mutation(query)


def _documents(question: Question) -> Iterator[str]:
    for name, value in parse_qsl(question.query, keep_blank_values=True):
        if name == "query":
            yield value
    body = question.body.decode(errors="replace")
    yield body
    yield from (value for name, value in parse_qsl(body) if name == "query")
    try:
        content = json.loads(question.body or b"{}")
    except ValueError:
        content = {}
    for each in content if isinstance(content, list) else [content]:
        if isinstance(each, dict) and isinstance(each.get("query"), str):
            yield each["query"]


def _holds_mutation(text: str) -> bool:
    """What cannot be parsed is executed by no server, which says best what is wrong with it."""
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    try:
        document = parse(text, no_location=True)
    except GraphQLError:
        return False
    operations = (each for each in document.definitions if isinstance(each, OperationDefinitionNode))
    return any(each.operation == OperationType.MUTATION for each in operations)

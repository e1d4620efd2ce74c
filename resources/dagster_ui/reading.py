"""What of the Dagster webserver only reads: every GET, and GraphQL without a mutation."""

from resources.consoles import graphql
from resources.consoles.gate import READ_METHODS, Question

GRAPHQL = "/graphql"


class DagsterReading:
    """For `Gate`."""

    def refusal(self, question: Question) -> str | None:
        if question.path == GRAPHQL:
            return "the query holds a mutation." if graphql.changes(question) else None
        if question.method in READ_METHODS:
            return None
        return f"{question.method} {question.path} may change something."

    def message_refusal(self, text: str) -> str | None:
        return "the message holds a mutation." if graphql.message_changes(text) else None

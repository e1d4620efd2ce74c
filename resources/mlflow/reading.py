"""What of MLflow's API only reads: every GET but those named here, and the POSTs that search.

`tests/integration/mlflow/test_reading.py` compares it with MLflow's own routes: a new version of MLflow adds
nothing unseen.
"""

import re

from resources.consoles import graphql
from resources.consoles.gate import READ_METHODS, Question

_PREFIX = r"/(?:ajax-)?api"
SEARCHES = re.compile(
    rf"{_PREFIX}/2\.0/mlflow/(?:experiments/search(?:-datasets)?|runs/search|logged-models/search"
    r"|registered-models/get-latest-versions|artifacts/presigned-download-url)"
    rf"|{_PREFIX}/3\.0/mlflow/(?:datasets/search|issues/search|prompt-optimization/jobs/search"
    r"|traces/(?:search|metrics|batchGetInfos|calculate-filter-correlation))"
    r"|/ajax-api/3\.0/jobs/search"
)
"""Asked by POST, because what is searched for may be long."""
GRAPHQL = "/graphql"
FORWARDS = re.compile(rf"{_PREFIX}/2\.0/mlflow/gateway-proxy|/gateway/.*")
"""Asks other servers, by GET too."""
ASSISTANT = re.compile(rf"{_PREFIX}/3\.0/mlflow/assistant/.*")
"""Runs programs on this machine; nobody reaches it."""


class MlflowReading:
    """For `Gate`."""

    def refusal(self, question: Question) -> str | None:
        if FORWARDS.fullmatch(question.path) or ASSISTANT.fullmatch(question.path):
            return f"{question.path} does more than read."
        if question.path == GRAPHQL:
            return "the query holds a mutation." if graphql.changes(question) else None
        if question.method in READ_METHODS or (
            question.method == "POST" and SEARCHES.fullmatch(question.path)
        ):
            return None
        return f"{question.method} {question.path} may change something."

    def message_refusal(self, text: str) -> str | None:
        return "MLflow has no web sockets."

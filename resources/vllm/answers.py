"""Whether a server answers a known question as the merged model did offline.

A known answer holds the question, the token ids that it was encoded to, and for each token of the
answer its id, log probability and margin (how far it was ahead of the runner-up, in log
probability). A served answer holds the same from the server, and `scores`: the log probability that
the server gives each *known* token, whatever it generated itself.

Two engines never agree to the last bit. In bfloat16 a logit between 16 and 32 is a multiple of
0.125, so equal logits are common and either token may win: answers are compared token by token up
to such a tie, and by `scores` all the way. SmolLM2-135M in bfloat16, offline by transformers and
served by vLLM on a CPU (base, merged, and as an adapter; 14 answers): a token's log probability was
0.21 apart at most, the mean of an answer 0.04 at most, and ties up to a margin of 0.125 went the
other way. The same training stopped an epoch earlier: up to 0.54 apart, 0.19 on average.

Not covered: two versions whose answers to all known questions are this close to each other.
"""

from typing import Any

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

TIE = 0.25
TOKEN_TOLERANCE = 0.5
MEAN_TOLERANCE = 0.08


class Token(TypedDict):
    id: int
    logprob: float
    margin: float


class KnownAnswer(TypedDict):
    """What the merged model answered offline, decoded greedily."""

    question: str
    text: str
    prompt_token_ids: list[int]
    tokens: list[Token]


def difference(known: dict[str, Any], served: dict[str, Any]) -> str | None:
    """What a served answer has that is not as known, in words; None where they agree."""
    found = (
        _prompt_difference(known, served)
        or _token_difference(known, served)
        or _score_difference(known, served)
    )
    return f"to the question {known['question']!r}, {found}" if found else None


def _prompt_difference(known: dict[str, Any], served: dict[str, Any]) -> str | None:
    expected, got = known["prompt_token_ids"], served["prompt_token_ids"]
    if expected == got:
        return None
    at = next((i for i, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]), None)
    where = f"the lengths are {len(expected)} and {len(got)}" if at is None else f"they part at token {at}"
    return f"the prompt's tokens are not those of training ({where}): another chat template or tokenizer"


def _token_difference(known: dict[str, Any], served: dict[str, Any]) -> str | None:
    expected, got = known["tokens"], served["tokens"]
    for at, (offline, online) in enumerate(zip(expected, got, strict=False)):
        if offline["id"] == online["id"]:
            continue
        if offline["margin"] <= TIE:
            return None  # from a tie on the two texts are different ones
        margin = f"by a margin of {offline['margin']:.2f}"
        return f"token {at} is {online['id']}, offline it was {offline['id']} {margin}"
    if len(got) < len(expected):
        return f"the answer ended after {len(got)} tokens, offline it has {len(expected)}"
    return None


def _score_difference(known: dict[str, Any], served: dict[str, Any]) -> str | None:
    offline, online = [token["logprob"] for token in known["tokens"]], served["scores"]
    apart = [abs(a - b) for a, b in zip(offline, online, strict=True)]
    if max(apart, default=0) > TOKEN_TOLERANCE:
        at = apart.index(max(apart))
        return f"token {at} has the log probability {online[at]:.2f}, offline it had {offline[at]:.2f}"
    if sum(apart) > MEAN_TOLERANCE * len(apart):
        mean = sum(apart) / len(apart)
        return f"log probabilities are {mean:.2f} apart on average, more than rounding explains"
    return None

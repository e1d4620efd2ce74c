"""The reference page of LLaMA-Factory's arguments: what the platform does with each, and why.

    python -m llm_assets.catalog.argument_page > docs/reference/recipe-arguments.md

Written from the tables that `llm-assets check` judges by, so the page says what it does.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

from llm_assets.catalog.argument_classes import REFUSED, SERVED, WITHOUT_EFFECT
from llm_assets.catalog.arguments import arguments, engine
from llm_assets.catalog.combinations import RULES
from llm_assets.catalog.engine_packages import NEEDS, packages
from llm_assets.catalog.platform_keys import PLATFORM_KEYS, platforms_reason
from llm_assets.catalog.renamed_arguments import RENAMED, renamed

INTRODUCTION = f"""\
# The arguments of a recipe

All {len(arguments())} arguments of `llamafactory-cli train` ({engine()}) and what the platform does with
each. `llm-assets check` judges by the same tables. Written by `python -m llm_assets.catalog.argument_page`.

| class | in a model's file | in an experiment |
|---|---|---|
| [served](#served) | reaches LLaMA-Factory as it is written | the same |
| [the platform's](#the-platforms) | a mistake, unless it changes nothing | replaced, and the run says so |
| [refused](#refused) | a mistake, unless it is the default | the same |
| [without effect](#without-effect) | left out, and the run says so; it is in no fingerprint | the same |
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    yield "## Served\n"
    yield from _table(("about", "arguments"), SERVED.items())
    yield "Some of them need a package. What no lock of the train engine has is refused by its name; a later"
    yield "lock that has it is enough.\n"
    yield from _rows(("argument", "values", "package", "locked"), _needs())
    yield "These are refused in some company (the defaults of the platform count):\n"
    yield from _rows(("argument", "refused because", "valid"), _rules())
    yield "## The platform's\n"
    yield from _table(("why", "arguments"), _platforms().items())
    yield "## Refused\n"
    yield from _table(("why", "arguments"), REFUSED.items())
    yield "## Without effect\n"
    yield from _table(("why", "arguments"), WITHOUT_EFFECT.items())
    yield "## Names of earlier versions\n"
    yield from _rows(("name", "gone since", "what to do"), _old_names())


def _needs() -> Iterator[tuple[str, ...]]:
    for need in NEEDS:
        locked = "yes" if set(need.packages) <= packages() else "no"
        yield _code(need.argument), _codes(need.values) or "any", _codes(need.packages), locked


def _rules() -> Iterator[tuple[str, ...]]:
    for rule in sorted(RULES, key=lambda rule: rule.key):
        yield _code(rule.key), rule.problem, rule.valid


def _platforms() -> dict[str, str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name in sorted(PLATFORM_KEYS):
        by_reason[str(platforms_reason(name, None))].append(name)
    return {reason: " ".join(names) for reason, names in by_reason.items()}


def _old_names() -> Iterator[tuple[str, ...]]:
    for old in sorted(RENAMED):
        said = renamed(old)
        yield _code(old), RENAMED[old].since, said.valid if said else ""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    return _rows(heads, ((why, _codes(sorted(names.split()))) for why, names in rows))


def _rows(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _codes(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def _code(name: str) -> str:
    return f"`{name}`"


if __name__ == "__main__":
    sys.stdout.write(page())

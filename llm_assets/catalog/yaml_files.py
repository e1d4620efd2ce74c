"""Reads a catalog's YAML files: plain values by the YAML 1.2 core schema, and the line of every field.

libyaml parses (a fifteenth of the time that a parser in Python takes, which 5,000 tenants feel); what
a scalar means is decided here, because libyaml's own binding still reads YAML 1.1, where `no` is
false, `1e-4` a text and `12:30` a number. Refused, unlike in most readers: a key that comes twice, an
object tag (`!!python/…`), a second document, and aliases that unfold to more than `MOST_NODES` nodes.
"""

import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import yaml
from yaml.cyaml import CParser
from yaml.resolver import BaseResolver

from llm_assets.catalog.mistakes import Place, dotted, shown
from resources.errors import LlmAssetsError

MOST_BYTES = 1_000_000
MOST_NODES = 100_000
MOST_DEPTH = 50
BEGINNINGS = re.compile(r"^[ \t\-?:]*", re.MULTILINE)
"""Of lines: each level of nesting takes a character of them, or is a bracket."""


class YamlError(LlmAssetsError):
    """A file that is not the YAML of a catalog. `line` counts from 1, `field` may be empty."""

    def __init__(self, problem: str, *, line: int | None = None, field: str = "", valid: str = "") -> None:
        super().__init__(problem)
        self.problem, self.line, self.field, self.valid = problem, line, field, valid


class _Resolver(BaseResolver):
    """The YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#1032-tag-resolution)."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _Composer(CParser, _Resolver):
    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        _Resolver.__init__(self)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file's mapping, where its fields stand, and the problems that left the rest of it readable."""

    value: dict[str, object]
    root: yaml.MappingNode
    problems: tuple[YamlError, ...]

    def line(self, place: Place = ()) -> int:
        """The line of a field, or of the nearest thing around it that is in the file."""
        node, line = self.root, self.root.start_mark.line + 1
        for step in place:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line


def read_yaml(file: BinaryIO) -> Document:
    """The mapping that a file holds.

    Raises:
        YamlError: It is not UTF-8, not YAML, empty, not a mapping, or holds what a catalog's file may not.
        OSError: It cannot be read.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        problem = f"the file has more than {MOST_BYTES:,} bytes"
        raise YamlError(problem, valid="a catalog's file is smaller; rows of a dataset belong into datasets/")
    try:
        text = content.decode("utf-8-sig")
        _refuse_deep(text)
        root = _Composer(text).get_single_node()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError("the file is not UTF-8 text", line=line, valid="save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise _not_yaml(error) from error
    if not isinstance(root, yaml.MappingNode):
        problem = "the file is empty" if root is None else "the file is not a mapping"
        raise YamlError(problem, line=1, valid="it holds lines of the form `field: value`")
    values = _Values()
    return Document(value=values.mapping(root, ()), root=root, problems=tuple(values.problems))


def _refuse_deep(text: str) -> None:
    """Raises YamlError where values lie too deep within each other: libyaml's composer would end the process.

    Counting events costs as much as composing. So it is left out where the brackets, and the beginnings of
    the lines, are too few for that.
    """
    indents = max((len(each) for each in BEGINNINGS.findall(text)), default=0)
    if text.count("[") + text.count("{") + 2 * indents < MOST_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Composer):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            problem = f"values lie more than {MOST_DEPTH} deep within each other"
            line = event.start_mark.line + 1
            raise YamlError(problem, line=line, valid="a catalog's file is flatter; is a bracket missing?")


def _not_yaml(error: yaml.YAMLError) -> YamlError:
    mark = getattr(error, "problem_mark", None)
    detail = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    problem = f"not YAML: {detail}" + (f" {context}" if context else "")
    return YamlError(problem, line=None if mark is None else mark.line + 1)


class _Values:
    """Turns nodes into values, counting them: an alias is unfolded, a bomb of aliases is not."""

    def __init__(self) -> None:
        self.problems: list[YamlError] = []
        self._nodes = 0

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, place)
            if not isinstance(key, str):
                self._problem(f"the key {shown(key)} is not a text", key_node, place, "put it in quotes")
            elif key in values:
                self._problem("the key comes twice", key_node, (*place, key), "keep one")
            else:
                values[key] = self.value(value_node, (*place, key))
        return values

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES or len(place) > MOST_DEPTH:
            line, field = node.start_mark.line + 1, dotted(place[:3])
            raise YamlError("the file holds too much, or an alias that holds itself", line=line, field=field)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = node.value
        try:
            match node.tag.removeprefix("tag:yaml.org,2002:"):
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text, 0 if text[:2] in ("0o", "0x") else 10)
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                case tag:
                    self._problem(f"the tag {tag} is not taken", node, place, "write a plain value")
        except ValueError:
            self._problem(f"{shown(text)} is not a number", node, place, "")
        return None

    def _problem(self, problem: str, node: yaml.Node, place: Place, valid: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(YamlError(problem, line=line, field=dotted(place), valid=valid))


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    return None

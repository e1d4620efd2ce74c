"""From lines to exchanges: a request with what ended it, or a refusal, or a request that nothing will end."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

from resources.audit.spool import SpoolFile, SpoolLine

End = Literal["response", "aborted"]
ENDS = get_args(End)

KEPT_BYTES = 64 * 1024
"""A request's line that is longer is read again from the file when its end is there, instead of kept in
memory.
"""


class Exchange(NamedTuple):
    """What becomes one record, and the lines that it takes from the spool.

    Both `request` and `end` are None for a line that is no event; a refusal is an `end` alone.
    """

    request: dict[str, object] | None
    end: dict[str, object] | None
    lines: tuple[SpoolLine, ...]

    @property
    def id(self) -> str:
        event = self.request or self.end
        if event:
            return str(event["id"])
        line = self.lines[0]
        return f"unreadable-{line.file.path.stem}-{line.offset}"


class Joiner:
    """Keeps requests until their end is read."""

    def __init__(self) -> None:
        self._open: dict[str, SpoolLine] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, line: SpoolLine) -> Exchange | None:
        """The exchange that this line ends, if it ends one."""
        event = line.event
        kind = event.get("e") if event else None
        if event and kind == "request":
            before = self._open.pop(str(event["id"]), None)
            self._open[str(event["id"])] = line if line.size <= KEPT_BYTES else line._replace(event=None)
            return _unended(before) if before else None
        if event and kind in ENDS:
            request = self._open.pop(str(event["id"]), None)
            if request is not None:
                return Exchange(_event(request), event, (request, line))
        if event and kind in (*ENDS, "denied"):
            return Exchange(None, event, (line,))
        return Exchange(None, None, (line,))

    def interrupted(self, over: Callable[[SpoolFile], bool]) -> Iterator[Exchange]:
        """The requests in files that nobody writes to any more: their gateway is gone."""
        gone = [id for id, line in self._open.items() if over(line.file)]
        for id in gone:
            yield _unended(self._open.pop(id))


def _unended(line: SpoolLine) -> Exchange:
    return Exchange(_event(line), None, (line,))


def _event(line: SpoolLine) -> dict[str, object] | None:
    return line.event or line.file.read_again(line.offset, line.size)

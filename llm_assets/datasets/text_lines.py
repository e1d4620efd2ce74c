"""Reads a text file line by line and says where it is not UTF-8."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from llm_assets.datasets.landing_zone import LandingZone
from llm_assets.datasets.mistakes import Mistakes

OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_lines(zone: LandingZone, path: Path, mistakes: Mistakes) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, line ends kept, a UTF-8 byte order mark taken off.

    Lines that are not UTF-8 are mistakes, and left out. A line longer than a row may be ends the file.
    """
    offset = number = 0
    most = zone.limits.row_bytes
    with zone.open(path) as file:
        while line := file.readline(most + 1):
            number += 1
            if number == 1 and line.startswith(OTHER_MARKS):
                mistakes.add(path, 1, "", "the file is UTF-16; save it as UTF-8")
                return
            if len(line) > most:
                problem = f"the line has {zone.limits.over_row}. What follows in this file was not read"
                mistakes.add(path, number, "", problem)
                return
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, text.decode()
            except UnicodeDecodeError as error:
                place = offset + len(line) - len(text) + error.start
                found = f"byte {place} of the file (0x{text[error.start]:02x})"
                mistakes.add(path, number, "", f"{found} is not UTF-8; save the file as UTF-8")
            offset += len(line)

"""The moving lines, in a terminal."""

import os
import sys

from tests.terminals import in_terminal, is_moving

SHOWS = """
import signal, time
from llm_assets.cli.display import Display
from llm_assets.cli.terminal import Screen
signal.signal(signal.SIGINT, signal.SIG_IGN)
display = Display(Screen())
with display.shown(), display.at_work("first"), display.at_work("second") as work:
    display.say(work, "said " * 100)
    time.sleep(3)
display.console.print("The end.")
"""


def test_ctrl_c_that_is_echoed_into_a_full_line_leaves_no_line_behind() -> None:
    with in_terminal([sys.executable, "-c", SHOWS], os.environ) as terminal:
        terminal.wait_until(lambda lines: any("said said" in line for line in lines), timeout_s=60)
        terminal.press(b"\x03\x03\x03")
        assert terminal.wait(timeout_s=60) == 0
    assert not any(is_moving(line) for line in terminal.lines())
    assert terminal.lines()[-1] == "The end."
    assert any("said said" in line for line in terminal.moving)

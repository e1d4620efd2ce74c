"""How a command ends: every error that we know how to explain is one message, not a traceback."""

import sys
from collections.abc import Callable

from rich.console import Console

from llm_assets.cli.options import FAILED, INTERRUPTED, MISUSED

MISUSES = ("CatalogError", "SettingsError", "UsageError")


def run(command: Callable[[], object]) -> None:
    """Runs a command and exits with the code that says how it ended."""
    try:
        command()
    except KeyboardInterrupt:
        _say("Interrupted.")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not _explained(error):
            raise
        _say(str(error))
        sys.exit(MISUSED if type(error).__name__ in MISUSES else FAILED)


def _explained(error: Exception) -> bool:
    """Our own error classes say what and the remedy; anything else is a defect and shows its traceback."""
    return type(error).__module__.split(".")[0] in ("llm_assets", "resources")


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, style="red", highlight=False, markup=False)

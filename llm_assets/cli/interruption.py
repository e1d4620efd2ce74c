"""What Ctrl-C (or SIGTERM) says: that the command ended, what runs on, and how to end that."""


class Interrupted(Exception):
    """The command was ended by SIGINT or SIGTERM; the text says what became of its work."""


def interrupted(said: str = "") -> str:
    """One line for the person who interrupted a command."""
    parts = _running()
    if not parts:
        return said or "Interrupted."
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    verb, them = ("run", "them") if len(parts) > 1 else ("runs", "it")
    return f"{said or 'Interrupted.'} {listed} still {verb}; `llm-assets down` stops {them}."


def _running() -> list[str]:
    """The parts of the local stack that run, as people name them."""
    from llm_assets.installation.files import SettingsError  # pydantic, psutil: needed here alone
    from llm_assets.installation.settings import find_settings
    from llm_assets.parts import part_of
    from resources.processes.local_processes import LocalProcesses

    try:
        processes = LocalProcesses(find_settings().processes)
    except SettingsError:
        return []
    return sorted({part_of(record) for record in processes.all() if processes.alive(record)}, key=str.lower)

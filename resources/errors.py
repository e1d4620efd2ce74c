"""The one base of our error classes, by which what we can explain is told from a defect."""


class LlmAssetsError(Exception):
    """Its text says what happened to what, why, and the next step: a person reads it, never a traceback."""


class InputError(LlmAssetsError):
    """What a person wrote is wrong: a command, a setting, a file of the catalog."""

"""Who is at work: the user of the operating system, whom no option and no variable replaces."""

import os
import pwd

LONGEST = 200  # characters of whom `--by` names


def operator(on_behalf_of: str | None = None) -> str:
    """`root`, or `root for anna` where `--by` names somebody else; `$USER` and its like are not asked."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        user = f"uid {os.getuid()}"
    return f"{user} for {on_behalf_of[:LONGEST]}" if on_behalf_of else user

"""What needs an engine that is being installed at this moment waits for it."""

import subprocess
import sys

from tests.integration.engines.sites import Site

WAITING = """
import pathlib, sys
from resources.engines.installation import engine_status, wait_for_installation
engines = pathlib.Path(sys.argv[1])
print(engine_status(engines, "train").installed)
wait_for_installation(engines, "train", print)
print(engine_status(engines, "train").installed)
"""


def waited(site: Site) -> list[str]:
    command = [sys.executable, "-c", WAITING, str(site.engines)]
    done = subprocess.run(
        command, cwd=site.root, env=site.environ, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()


def test_an_engine_that_is_being_installed_is_waited_for(site: Site) -> None:
    installation = site.start("train")
    assert installation.stdout is not None
    next(installation.stdout)
    assert waited(site) == ["False", "waiting for another installation of it", "True"]
    installation.communicate(timeout=60)


def test_one_that_nobody_installs_is_not_waited_for(site: Site) -> None:
    assert waited(site) == ["False", "False"]
    site.install("train")
    assert waited(site) == ["True", "True"]

"""Debian's Chromium, driven by its own driver; nothing is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

ARGUMENTS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run")
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync")


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A browser whose profile lies in that folder."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program is not None, "Debian's chromium is missing: apt-get install chromium"
    assert driver is not None, "Debian's chromium-driver is missing: apt-get install chromium-driver"
    options = ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, *QUIET, f"user-data-dir={profile}", "window-size=1600,1200"):
        options.add_argument(f"--{argument}")
    chrome = Chrome(options=options, service=ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()

"""The system's Chromium, which draws the web console for tests and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: Debian's package installs the first of these.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


class ChromiumMissing(RuntimeError):
    """This machine has no Chromium, or the package that drives it is missing; the text names the remedy."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window. Playwright brings no browser of its own here.

    Raises:
      ChromiumMissing: When the browser or the package playwright is not installed.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise ChromiumMissing("There is no Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as e:
        raise ChromiumMissing("playwright is missing: pip install -r requirements-dev.txt") from e
    with sync_playwright() as playwright:
        # Root has no sandbox, and a container a small /dev/shm.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()

"""`make run` with a browser: somebody does what it prints, and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dev.child import Child
from dev.demo.screenshots import log_in
from dev.ports import free_port
from dev.stack import ROOT
from tests.browser.conftest import no_complaint
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

DEADLINE_S = 180
DEADLINE_MS = DEADLINE_S * 1_000


@dataclass(frozen=True, slots=True)
class Shell:
    """A terminal in which `make run` serves.

    Attributes:
      printed: The lines of `make run`.
      env: The variables of this terminal, and of the next one.
    """

    printed: str
    env: dict[str, str]

    def commands(self) -> list[list[str]]:
        """The commands that the paragraph about the web console proposes."""
        _, _, paragraph = self.printed.partition("Break it")
        return [shlex.split(line) for line in re.findall(r"^    (\S.*)$", paragraph, re.MULTILINE)]

    def run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shell(server_home: Callable[[], Path]) -> Iterator[Shell]:
    """A terminal in which `make run` serves."""
    home = server_home()
    env = {
        **os.environ,
        "DATABASE_URL": f"postgresql://user@localhost:{free_port()}/moderation",
        "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{free_port()}",
        "API_PORT": str(free_port()),
        "CONSOLE_PORT": str(free_port()),
        "DEV_DIR": str(home),
    }
    run = Child(
        "python -m dev",
        [sys.executable, "-m", "dev"],
        log=home / "run.log",
        cwd=ROOT,
        env=env,
    )
    run.start()

    def lines() -> str:
        run.check()
        text = run.log.read_text(encoding="utf-8")
        return text if "Ctrl-C stops everything" in text else ""

    try:
        yield Shell(wait_until(lines, deadline_s=DEADLINE_S, what="the service"), env)
    finally:
        run.stop()


def test_what_make_run_proposes_breaks_a_task_and_redrives_its_dead_letter(
    browser: Browser, shell: Shell
) -> None:
    url = re.search(r"^Web console  (\S+)$", shell.printed, re.MULTILINE)
    password = re.search(r"Log in as admin with the password (\S+)$", shell.printed, re.MULTILINE)
    assert url
    assert password
    break_it, mend_it = shell.commands()
    page = browser.new_page()
    with no_complaint(page):
        log_in(page, url[1], password[1])
        shell.run(break_it)
        dead = page.get_by_role("row").filter(has_text="moderation").locator("a.bad")
        dead.wait_for(timeout=DEADLINE_MS)
        shell.run(mend_it)
        dead.click()
        page.locator("tbody a.id").click()
        page.get_by_label("Traceback", exact=True).wait_for()
        page.get_by_role("link", name="Redrive…").click()
        page.get_by_label("to confirm").fill("1")
        page.get_by_label("Reason").fill("the ad is there now")
        page.get_by_role("button", name="Redrive").click()
        page.get_by_text("1 redriven").wait_for(timeout=DEADLINE_MS)
        page.get_by_role("link", name="Overview").click()
        page.get_by_text("All is well").wait_for(timeout=DEADLINE_MS)
        page.get_by_role("link", name="Tasks", exact=True).click()
        row = page.get_by_role("row").filter(has_text="moderate_item").first
        row.locator(".s-succeeded").wait_for(timeout=DEADLINE_MS)
    page.close()

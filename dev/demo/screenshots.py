"""`make screenshots`: pictures of each page of the web console, from the demo, into docs/web-console/."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.child import ChildDied
from dev.chromium import ChromiumMissing, chromium
from dev.console import say, step
from dev.demo.running import PASSWORD, Demo
from dev.ports import free_port
from dev.stack import ROOT
from dev.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "docs" / "web-console"
MAX_BYTES = 200_000
WIDTH, HEIGHT = 1280, 800
PHONE_WIDTH = 390
#: Enough for a chart, and for each kind of dead letter.
FILLED_DEADLINE_S = 600.0
SAMPLES = 5


def log_in(page: Page, url: str, password: str = PASSWORD) -> None:
    """Log in as the administrator, and see the overview."""
    page.goto(url)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(url)


def document(page: Page, url: str) -> Any:
    """A page as JSON."""
    return page.request.get(url, headers={"Accept": "application/json"}).json()


def paths_of_pages(page: Page, url: str) -> dict[str, str]:
    """The path of each page, by the name of its picture. It needs a worker, and a dead letter of a card."""
    (letter, *_) = document(page, f"{url}dead-letters?error=CardDeclined")["dead_letters"]
    (worker, *_) = document(page, f"{url}workers")["workers"]
    return {
        "overview": "",
        "queues": "queues",
        "queue": "queues/payments",
        "tasks": "tasks",
        "task": f"task?id={letter['message_id']}",
        "dead-letters": "dead-letters",
        "redrive": "dead-letters/resolve?action=redrive&error=CardDeclined",
        "actors": "actors",
        "actor": "actor?name=charge",
        "workers": "workers",
        "worker": f"worker?id={worker['worker']}",
        "schedules": "schedules",
        "audit": "audit",
        "health": "health",
    }


def _retried_task(page: Page, url: str) -> str:
    """The path of the task with the most attempts that has succeeded. It has no traceback, whose paths are
    those of this machine.
    """
    tasks = document(page, f"{url}tasks?actor=reserve&status=succeeded")["tasks"]
    most = max(tasks, key=lambda row: int(row["attempt"]))
    return f"task?id={most['message_id']}"


def _fill(demo: Demo, page: Page) -> None:
    """Break the mail for a while, and wait until there is something to see."""
    demo.mail_is_down.touch()
    wanted = {"MailServerAway", "CardDeclined", "TimeLimitExceeded"}

    def is_filled() -> bool:
        demo.check()
        errors = {row["error_type"] for row in document(page, f"{demo.url}dead-letters")["groups"]}
        (throughput, *_) = document(page, demo.url)["charts"]
        if "MailServerAway" in errors:
            demo.mail_is_down.unlink(missing_ok=True)
        return wanted <= errors and len(throughput["at_ms"]) >= SAMPLES

    wait_until(is_filled, deadline_s=FILLED_DEADLINE_S, what="dead letters of each kind")


def _act(demo: Demo, page: Page) -> None:
    """Changes that the audit shows."""
    page.goto(f"{demo.url}queues/images")
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").fill("the image server moves")
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_text("Paused by admin").wait_for()
    page.goto(f"{demo.url}dead-letters/resolve?action=redrive&error=MailServerAway")
    page.get_by_label("to confirm").fill(page.get_by_text("to confirm").inner_text().split()[1])
    page.get_by_label("Reason").fill("the mail server is back")
    page.get_by_role("button", name="Redrive").click()
    page.get_by_text("redriven").wait_for()


def _picture(
    browser: Browser, demo: Demo, name: str, path: str, *, dark: bool = False, width: int = WIDTH
) -> None:
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": HEIGHT}
    )
    page = context.new_page()
    log_in(page, demo.url)
    page.goto(demo.url + path)
    file = PICTURES / f"{name}.png"
    page.screenshot(path=file)
    context.close()
    if file.stat().st_size > MAX_BYTES:
        raise RuntimeError(f"{file} has {file.stat().st_size:,} bytes, and {MAX_BYTES:,} are allowed")


def main() -> int:
    """Exit codes: 0 with all pictures, 1 when something is missing or has failed."""
    home = Path(tempfile.mkdtemp(prefix="demo-"))
    demo = Demo(home, servers=os.environ.get("DEMO_SERVERS"), port=free_port())
    PICTURES.mkdir(parents=True, exist_ok=True)
    try:
        with chromium() as browser:
            demo.start()
            first = browser.new_page()
            log_in(first, demo.url)
            with step("something to see"):
                _fill(demo, first)
            _act(demo, first)
            with step("pictures"):
                paths = paths_of_pages(first, demo.url)
                paths["task"] = _retried_task(first, demo.url)
                for name, path in paths.items():
                    _picture(browser, demo, name, path)
                for name in ("overview", "dead-letters"):
                    _picture(browser, demo, f"{name}-dark", paths[name], dark=True)
                _picture(browser, demo, "overview-phone", "", width=PHONE_WIDTH)
        say(f"The pictures are in {PICTURES.relative_to(ROOT)}")
        return 0
    except (ChromiumMissing, ChildDied, TimeoutError) as e:
        print(f"Cannot run: {e}", file=sys.stderr, flush=True)
        return 1
    finally:
        demo.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

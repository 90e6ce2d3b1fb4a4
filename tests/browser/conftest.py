"""A browser on the demo's shop: its worker, its console, and the Kafka of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from dev.chromium import ChromiumMissing, chromium
from dev.demo.running import Demo
from dev.demo.screenshots import log_in
from dev.ports import free_port
from dev.stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 1280, 800


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium. A machine without it fails the tests with the command that installs it."""
    try:
        with chromium() as browser:
            yield browser
    except ChromiumMissing as e:
        pytest.fail(str(e))


@pytest.fixture(scope="module")
def demo(
    request: pytest.FixtureRequest,
    browser: Browser,
    stack: Stack,
    new_namespace: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Demo]:
    """The demo of this module, without its feed where the module says ``HAS_FEED = False``."""
    demo = Demo(
        tmp_path_factory.mktemp("demo"),
        servers=stack.bootstrap_servers,
        namespace=new_namespace(),
        port=free_port(),
    )
    try:
        demo.start(has_feed=getattr(request.module, "HAS_FEED", True))
        yield demo
    finally:
        demo.stop()


@contextmanager
def no_complaint(page: Page) -> Iterator[None]:
    """Fail when a script of the page fails, or when the page contains what its policy forbids."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    yield
    assert complaints == []


@pytest.fixture(scope="module")
def session(browser: Browser, demo: Demo) -> Any:
    """The cookies of an administrator who has logged in."""
    page = browser.new_page()
    log_in(page, demo.url)
    state = page.context.storage_state()
    page.context.close()
    return state


@pytest.fixture
def page(browser: Browser, demo: Demo, session: Any) -> Iterator[Page]:
    """The overview, as an administrator sees it. The scripts of a test's pages must not fail."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, storage_state=session)
    page = context.new_page()
    with no_complaint(page):
        page.goto(demo.url)
        yield page
    context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, out of a package."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

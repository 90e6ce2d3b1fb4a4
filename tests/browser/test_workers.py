"""A worker that is harmed, as the web console shows it live."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from dramatiq import Message

from broker import KafkaBroker
from dev.demo.running import Demo
from dev.demo.screenshots import document
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: Without messages: a worker is stuck only when none of its tasks ends.
HAS_FEED = False
DEADLINE_S = 180
DEADLINE_MS = DEADLINE_S * 1_000


def test_a_task_that_runs_is_aborted_and_its_timeline_says_so(page: Page, demo: Demo) -> None:
    broker = KafkaBroker(demo.servers, namespace=demo.namespace)
    try:
        broker.declare_queue("images")
        long = broker.enqueue(Message("images", "resize", ("poster.png", 110.0), {}, {}))
    finally:
        broker.close()
    page.get_by_role("link", name="Workers").click()
    # Nobody loads this page again: it follows by itself.
    page.get_by_role("link", name=long.message_id).click(timeout=DEADLINE_MS)
    page.get_by_text("Abort…").click()
    page.get_by_label("Reason").fill("the wrong poster")
    page.get_by_role("button", name="Abort the task").click()
    page.get_by_text("The abort stands").wait_for(timeout=DEADLINE_MS)
    row = page.get_by_role("row").filter(has_text=long.message_id)
    row.locator(".s-aborted").wait_for(timeout=DEADLINE_MS)
    row.get_by_role("link", name=long.message_id).click()
    page.locator(".timeline .e-aborted").wait_for()
    assert page.get_by_text("Abort…").count() == 0


def test_a_hanging_worker_is_stuck_a_frozen_one_is_silent_and_a_killed_one_is_gone(
    page: Page, demo: Demo
) -> None:
    def workers() -> list[dict[str, int]]:
        demo.check()
        return list(document(page, f"{demo.url}workers")["workers"])

    (worker,) = wait_until(workers, deadline_s=DEADLINE_S, what="the report of the worker")
    process = psutil.Process(worker["pid"])
    page.get_by_role("link", name="Workers").click()
    # Nobody loads this page again: it follows by itself.
    row = page.get_by_role("region", name="Workers of the last hour").get_by_role("row").nth(1)
    row.locator(".s-idle").wait_for(timeout=DEADLINE_MS)

    broker = KafkaBroker(demo.servers, namespace=demo.namespace)
    try:
        broker.declare_queue("labels")
        broker.enqueue(Message("labels", "print_label", (7,), {}, {}))
    finally:
        broker.close()
    row.locator(".s-stuck").wait_for(timeout=DEADLINE_MS)
    row.get_by_text("past its limit").wait_for()

    process.suspend()
    try:
        row.locator(".s-silent").wait_for(timeout=DEADLINE_MS)
    finally:
        process.resume()
    row.locator(".s-stuck").wait_for(timeout=DEADLINE_MS)

    os.kill(process.pid, signal.SIGKILL)
    row.locator(".s-gone").wait_for(timeout=DEADLINE_MS)
    row.get_by_text("SIGKILL").wait_for(timeout=DEADLINE_MS)

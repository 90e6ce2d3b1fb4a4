"""The web console as a person uses it: a browser, a worker that has something to do, and a Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dramatiq
import pytest

from broker import KafkaBroker
from dev.demo.running import Demo
from dev.demo.screenshots import document, paths_of_pages
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: A loaded machine reads Kafka in many seconds, and a redrive waits for a worker.
DEADLINE_S = 180
DEADLINE_MS = DEADLINE_S * 1_000
PHONE_WIDTH = 390
HOSTILE = '"\'><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{7*7}}'


def letters_of(page: Page, demo: Demo, error: str) -> list[dict[str, Any]]:
    return list(document(page, f"{demo.url}dead-letters?error={error}")["dead_letters"])


def wait_for_dead(page: Page, demo: Demo, error: str) -> dict[str, Any]:
    """The first dead letter with an error, as soon as the console has one."""

    def found() -> list[dict[str, Any]]:
        demo.check()
        return letters_of(page, demo, error)

    return wait_until(found, deadline_s=DEADLINE_S, what=f"a dead letter of {error}")[0]


def test_a_broken_mail_server_is_seen_live_and_its_dead_letters_are_redriven(page: Page, demo: Demo) -> None:
    # Nobody loads this page again: it follows by itself.
    dead = (
        page.get_by_role("row").filter(has=page.get_by_role("link", name="mail", exact=True)).locator("a.bad")
    )
    dead.wait_for(timeout=DEADLINE_MS)  # of an actor that no worker knows
    before = int(dead.inner_text())
    demo.mail_is_down.touch()
    wait_until(lambda: int(dead.inner_text()) > before, deadline_s=DEADLINE_S, what="more dead letters")
    demo.mail_is_down.unlink()
    dead.click()
    page.get_by_role("link", name="MailServerAway").first.click()
    letter = page.locator("tbody a.id").last.inner_text()
    page.get_by_role("link", name="Redrive all").click()
    count = page.get_by_text("to confirm").inner_text().split()[1]
    page.get_by_label("to confirm").fill(count)
    page.get_by_label("Reason").fill("the mail server is back")
    page.get_by_role("button", name="Redrive").click()
    page.get_by_text(f"{count} redriven").wait_for(timeout=DEADLINE_MS)
    page.get_by_role("link", name="Audit").click()
    row = page.get_by_role("row").filter(has_text="the mail server is back").filter(has_text="redriven")
    row.first.wait_for(timeout=DEADLINE_MS)
    page.goto(f"{demo.url}task?id={letter}")
    page.locator(".timeline .e-succeeded").wait_for(timeout=DEADLINE_MS)


def test_a_paused_queue_begins_nothing_until_it_is_resumed(page: Page, demo: Demo) -> None:
    def waiting() -> int:
        return int(document(page, f"{demo.url}queues/warehouse")["queue"]["waiting"])

    page.goto(f"{demo.url}queues/warehouse")
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").fill("an inventory")
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_text("Paused by admin").wait_for()
    wait_until(lambda: waiting() > 15, deadline_s=DEADLINE_S, what="messages that wait")
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("The queue is resumed").wait_for()
    wait_until(lambda: waiting() < 15, deadline_s=DEADLINE_S, what="the queue to be worked off")


def test_the_traceback_and_the_arguments_of_a_dead_letter_are_shown_and_a_secret_is_not(
    page: Page, demo: Demo
) -> None:
    wait_for_dead(page, demo, "CardDeclined")
    page.goto(f"{demo.url}dead-letters?error=CardDeclined")
    page.locator("tbody a.id").first.click()
    page.get_by_label("Traceback", exact=True).get_by_text("raise CardDeclined").wait_for()
    assert page.get_by_label("Call").inner_text() == 'charge("•••", cents="•••")'
    page.get_by_role("link", name="Show the arguments").click()
    page.get_by_text("cents=1").first.wait_for()


def test_axe_finds_nothing_on_any_page_light_dark_or_narrow(
    page: Page, browser: Browser, demo: Demo, axe: str
) -> None:
    letter = wait_for_dead(page, demo, "CardDeclined")
    paths = [*paths_of_pages(page, demo.url).values(), "log-in", "nothing-is-here"]
    paths += [f"send-again?queue={letter['queue']}&partition={letter['part']}&offset={letter['place']}"]
    # A test may run a script that the policy of the console forbids to the console.
    # Colours change at once without motion.
    context = browser.new_context(
        bypass_csp=True, reduced_motion="reduce", storage_state=page.context.storage_state()
    )
    looked = context.new_page()
    found: list[str] = []

    def look(path: str, what: str) -> None:
        violations = looked.evaluate("axe.run({resultTypes: ['violations']}).then((one) => one.violations)")
        for one in violations:
            for node in one["nodes"][:2]:
                text = f"{one['id']}: {node['html'][:120]} {node['failureSummary']}"
                found.append(f"/{path} ({what}): {text}")

    for path in paths:
        looked.set_viewport_size({"width": 1280, "height": 800})
        looked.emulate_media(color_scheme="light")
        looked.goto(demo.url + path)
        looked.evaluate(axe)
        look(path, "light")
        # Colours do not depend on the width.
        looked.emulate_media(color_scheme="dark")
        looked.set_viewport_size({"width": PHONE_WIDTH, "height": 800})
        look(path, "dark, narrow")
        # A table scrolls in its own region, and never the whole page.
        if looked.evaluate("document.documentElement.scrollWidth") > PHONE_WIDTH:
            found.append(f"/{path} is wider than a phone")
    context.close()
    assert found == []


def test_nothing_that_a_message_holds_becomes_markup(page: Page, demo: Demo) -> None:
    broker = KafkaBroker(demo.servers, namespace=demo.namespace)
    try:
        broker.declare_queue("payments")
        unknown: dramatiq.Message[None] = dramatiq.Message(
            "payments", HOSTILE, (HOSTILE,), {HOSTILE: HOSTILE}, {}
        )
        broker.enqueue(unknown.copy(message_id=HOSTILE))
        # Its error and its traceback have the name of the argument.
        broker.enqueue(dramatiq.Message("payments", "charge", (HOSTILE,), {HOSTILE: 1}, {"max_retries": 0}))
    finally:
        broker.close()

    def both() -> list[dict[str, Any]]:
        demo.check()
        found = letters_of(page, demo, "UnknownActor") + letters_of(page, demo, "TypeError")
        hostile = [row for row in found if HOSTILE in f"{row['actor']} {row['error']}"]
        return hostile if len(hostile) == 2 else []

    letters = wait_until(both, deadline_s=DEADLINE_S, what="the hostile dead letters")
    page.goto(f"{demo.url}queues/labels")
    page.get_by_text("Pause…").click()
    page.get_by_label("Reason").fill(HOSTILE)
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_text("Paused by admin").wait_for()
    paths = ["dead-letters", "dead-letters?queue=payments", "audit", "queues/labels", "tasks?status=dead"]
    for one in letters:
        place = f"{one['queue']}/{one['part']}/{one['place']}"
        paths.append(f"dead-letters/{place}?arguments=1")
        paths.append(f"dead-letters/resolve?action=discard&place={one['part']}:{one['place']}:{one['queue']}")
        paths.append(f"send-again?queue={one['queue']}&partition={one['part']}&offset={one['place']}")
    shown = 0
    for path in paths:
        page.goto(demo.url + path)
        shown += "onerror" in page.locator("main").inner_text() or page.locator("textarea").count() > 0
        assert page.locator("img, script:not([src])").count() == 0, path
        assert page.evaluate("window.hacked") is None, path
    assert shown >= 8  # all but the two that repeat what is selected, and the list of tasks
    page.goto(demo.url)
    page.get_by_role("link", name="Tasks").click()
    page.get_by_label("Id", exact=True).fill(HOSTILE)
    page.get_by_role("button", name="Search").click()
    page.locator("tbody a.id").first.click()
    page.get_by_text("onerror").first.wait_for()
    assert page.evaluate("window.hacked") is None


def test_the_pages_work_without_script(browser: Browser, page: Page, demo: Demo) -> None:
    context = browser.new_context(java_script_enabled=False, storage_state=page.context.storage_state())
    plain = context.new_page()
    plain.goto(demo.url)
    assert plain.locator("figure svg").count() == 3
    plain.get_by_role("navigation").get_by_role("link", name="Dead letters").click()
    plain.get_by_role("heading", name="Dead letters").first.wait_for()
    plain.goto(f"{demo.url}queues/reports")
    plain.get_by_text("Pause…").click()
    plain.get_by_label("Reason").fill("without script")
    plain.get_by_role("button", name="Pause the queue").click()
    plain.get_by_role("button", name="Resume").click()
    plain.get_by_text("The queue is resumed").wait_for()
    context.close()


def test_the_keyboard_reaches_the_content_the_pages_and_a_form(page: Page, demo: Demo) -> None:
    page.goto(f"{demo.url}tasks")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Abort…"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "id"

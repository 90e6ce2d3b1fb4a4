"""flask-dramatiq: the broker is named in Flask's configuration, and gets a URL and a list of middleware."""

from __future__ import annotations

import pytest

from tests.ecosystem.conftest import DEADLINE_S, Application
from tests.waiting import wait_until

APP = ("-m", "flask", "--app", "tests.ecosystem.flask_shop:create_app")


@pytest.fixture
def shop(application: Application) -> Application:
    worker = application.start("worker", *APP, "worker", "--processes", "1", "--threads", "2")
    worker.wait_for_boots(1)
    return application


def buy(shop: Application, order: str) -> None:
    """Send the request to the application, in a process like those of a web server."""
    client = (
        "from tests.ecosystem.flask_shop import create_app; "
        f"assert create_app().test_client().post('/orders/{order}').data == b'bought'"
    )
    shop.run("-c", client)


def test_what_a_view_sends_runs_in_flasks_worker_within_the_applications_context(shop: Application) -> None:
    buy(shop, "7")
    (shipped,) = wait_until(
        lambda: shop.journal.entries("shipped"), deadline_s=DEADLINE_S, what="the order to be shipped"
    )
    assert (shipped["order"], shipped["by"]) == ("7", "Tortoise")


def test_a_task_that_fails_for_good_is_a_dead_letter_although_flask_brings_its_own_middleware(
    shop: Application,
) -> None:
    buy(shop, "8")
    broker = shop.broker("mail")
    broker.join("mail", timeout=int(DEADLINE_S * 1000))
    (dead_letter,) = broker.dead_letters("mail")
    assert dead_letter.message is not None
    assert dead_letter.message.args == ("8",)
    assert (dead_letter.error_type, dead_letter.error) == ("ValueError", "no address for 8")

"""The application of the demo: actors that succeed, fail, retry, wait and hang.

Its feed makes every kind of dead letter.

Importing connects to nothing. The environment names the servers, as the demo sets it.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import dramatiq
from dramatiq.middleware import TimeLimitExceeded

from broker import Cron, KafkaBroker, PermanentError, TemporaryError, current_task

HOME = Path(os.environ.get("DEMO_HOME", "."))
NAMESPACE = os.environ.get("DEMO_NAMESPACE", "demo-")
#: While this file is there, no mail can be sent.
MAIL_IS_DOWN = HOME / "mail-is-down"

broker = KafkaBroker(
    os.environ.get("DEMO_SERVERS", "localhost:9092"),
    namespace=NAMESPACE,
    group_id=f"{NAMESPACE}shop",
    partitions=2,
    session_timeout_ms=6_000,
    delay_index_dir=str(HOME / f"index-{os.getpid()}"),
    app_version="2.4.0",
)
dramatiq.set_broker(broker)
# Not the seeded generator of `random`: the processes of a worker would fail together.
_chance = random.SystemRandom()


class MailServerAway(TemporaryError):
    """The mail server does not answer."""


class CardDeclined(PermanentError):
    """The bank has declined a payment."""


class StockServiceBusy(TemporaryError):
    """The warehouse answers later."""


@dramatiq.actor(queue_name="mail", max_retries=1, min_backoff=300, max_backoff=600)
def send_mail(order: int, to: str, api_key: str = "") -> None:
    """Succeeds, unless the mail server is down."""
    time.sleep(_chance.uniform(0.005, 0.03))
    if MAIL_IS_DOWN.exists():
        raise MailServerAway(f"order {order}: smtp.shop.example refuses the connection")


@dramatiq.actor(queue_name="payments", max_retries=3)
def charge(order: int, cents: int) -> None:
    """Fails for good for one order of 25."""
    time.sleep(_chance.uniform(0.01, 0.06))
    if order % 25 == 0:
        raise CardDeclined(f"order {order}: the bank declined {cents / 100:.2f} EUR")


@dramatiq.actor(queue_name="warehouse", max_retries=8, min_backoff=400, max_backoff=2_000)
def reserve(order: int) -> None:
    """Is retried often."""
    time.sleep(_chance.uniform(0.005, 0.02))
    if _chance.random() < 0.15:
        raise StockServiceBusy(f"order {order}: try again later")


@dramatiq.actor(queue_name="warehouse", max_retries=0)
def count_stock() -> None:
    """Runs by a schedule, which the feed writes."""


@dramatiq.actor(queue_name="images", max_retries=0, time_limit=120_000)
def resize(path: str, seconds: float) -> None:
    """Takes long, and tells its progress."""
    steps = max(1, int(seconds * 4))
    for number in range(steps):
        current_task.progress(number / steps, f"scaling {path}")
        time.sleep(0.25)


@dramatiq.actor(queue_name="labels", max_retries=0, time_limit=1_000)
def print_label(order: int) -> None:
    """Hangs, and swallows the interrupt of its time limit, as careless code does."""
    while True:
        try:
            time.sleep(0.1)
        except TimeLimitExceeded:
            continue


@dramatiq.actor(
    queue_name="reports", max_retries=0, time_limit=1_000, schedule=Cron("0 6 * * 1-5", zone="Europe/Berlin")
)
def nightly_report(day: str = "yesterday", seconds: float = 0.1) -> None:
    """Runs by a schedule, or is delayed; one that takes too long is interrupted."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)

"""An application that the command `dramatiq` runs, with tasks that end, fail, wait or hang."""

from __future__ import annotations

import os
import tempfile
import time

import dramatiq

from broker import KafkaBroker, current_task

broker = KafkaBroker(
    os.environ["SHOP_SERVERS"],
    namespace=os.environ["SHOP_NAMESPACE"],
    group_id=os.environ["SHOP_NAMESPACE"] + "workers",
    session_timeout_ms=6_000,
    delay_index_dir=tempfile.mkdtemp(),
    app_version="2.4.0",
)
dramatiq.set_broker(broker)


class MailServerAway(Exception):
    """The mail server does not answer."""


@dramatiq.actor(queue_name="mail", max_retries=1, min_backoff=500, max_backoff=500)
def send_mail(order: int) -> None:
    if order % 2:
        raise MailServerAway(f"order {order}: connection refused")


@dramatiq.actor(queue_name="mail", max_retries=0)
def check_address(order: int) -> None:
    raise ValueError(f"order {order} has no address")


@dramatiq.actor(queue_name="images", max_retries=0)
def resize(path: str, duration_s: float) -> None:
    current_task.progress(0.4, f"scaling {path}")
    time.sleep(duration_s)


@dramatiq.actor(queue_name="images", max_retries=0, time_limit=1_000)
def scan(path: str, duration_s: float) -> None:
    # One call into the operating system: Python raises the error of the time limit only after it.
    time.sleep(duration_s)

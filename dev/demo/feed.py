"""`python -m dev.demo.feed`: sends the demo's messages until it is told to stop."""

from __future__ import annotations

import itertools
import time

import dramatiq

from broker import EnqueueFailed, Every
from dev.demo import shop

#: The messages a second, about.
RATE_PER_S = 20


def seed() -> None:
    """Messages that become dead letters of each kind, and some that wait for their time."""
    for order in range(1_000_000, 1_000_012):
        shop.charge.send(order * 25, cents=1_999)
    shop.nightly_report.send("2026-11-01", seconds=5)
    shop.broker.schedules.put("count the stock", shop.count_stock, Every(seconds=30), by="feed")
    for hour in range(1, 6):
        shop.nightly_report.send_with_options(args=(f"2026-11-{hour:02d}",), delay=hour * 3_600_000)
    shop.broker.declare_queue("mail")
    for number in range(3):
        # Its actor was removed with a deployment.
        shop.broker.enqueue(dramatiq.Message("mail", "send_fax", (number,), {}, {}))
    # Its arguments are those of another version.
    shop.broker.enqueue(dramatiq.Message("payments", "charge", (), {"invoice": 7}, {"max_retries": 0}))


def send(order: int) -> None:
    """Send the messages of one order."""
    shop.send_mail.send(order, f"customer-{order}@shop.example", api_key="k-1f2e3d")
    shop.charge.send(order, cents=1_000 + order % 900)
    shop.reserve.send(order)
    if order % 60 == 1:
        shop.resize.send(f"photo-{order}.jpg", seconds=20)


def main() -> None:
    seed()
    for order in itertools.count(1):
        try:
            send(order)
        except EnqueueFailed as e:
            print(e, flush=True)  # the next order is tried
        time.sleep(3 / RATE_PER_S)


if __name__ == "__main__":
    main()

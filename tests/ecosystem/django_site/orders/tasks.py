"""The tasks of a Django application."""

import os
import time
from pathlib import Path

import dramatiq
from dramatiq_crontab import interval

from tests.ecosystem.journal import note


@dramatiq.actor
def ship(order):
    note("shipped", order=order)


@dramatiq.actor(queue_name="mail", max_retries=0)
def send_receipt(order):
    raise ValueError(f"no address for {order}")


@dramatiq.actor(queue_name="packing")
def pack(order):
    note("packing", order=order, worker=os.environ.get("WORKER"))
    gate = Path(os.environ["JOURNAL"]).with_name("gate")
    while not gate.exists():
        time.sleep(0.02)


@interval(seconds=1)
@dramatiq.actor(queue_name="stock")
def count_stock():
    note("counted")

"""Runs dkb in a process of its own, on a Kafka in memory with a dead letter whose error is not ASCII."""

from __future__ import annotations

import logging
import sys

import dramatiq

from broker import KafkaBroker
from broker.console.command import app
from broker.testing import Kit, drain

logging.disable()
broker = KafkaBroker(namespace="shop-", partitions=1)
with Kit(broker).use():
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task() -> None:
        raise ValueError("zu groß: 📦")

    task.send()
    drain(raise_errors=False)
    app(sys.argv[1:], obj=broker, prog_name="dkb")

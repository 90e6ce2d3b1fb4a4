"""An application with the middleware of log lines, for Dramatiq's command line."""

from __future__ import annotations

import logging
import os
import tempfile

import dramatiq

from broker import KafkaBroker, default_middleware
from broker.logs import TaskLogs

broker = KafkaBroker(
    os.environ["BOOTSTRAP_SERVERS"],
    namespace=os.environ["NAMESPACE"],
    session_timeout_ms=6_000,
    delay_index_dir=tempfile.mkdtemp(),
    middleware=[TaskLogs(), *default_middleware()],
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail")
def pay(card: str) -> None:
    logging.getLogger("shop").info("asking the bank")

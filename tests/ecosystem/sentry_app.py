"""An application that reports to Sentry, as the documentation of Sentry's Dramatiq integration has it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dramatiq
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.transport import Transport

from broker import KafkaBroker
from tests.ecosystem.journal import note


class ToJournal(Transport):
    """Takes what would go to Sentry."""

    def capture_envelope(self, envelope: Envelope) -> None:
        if (event := envelope.get_event()) is not None:
            error = event["exception"]["values"][-1]
            note("error", type=error["type"], message=event["contexts"]["dramatiq"]["data"])
        elif (transaction := envelope.get_transaction_event()) is not None:
            trace = transaction["contexts"]["trace"]
            note("transaction", name=transaction["transaction"], op=trace["op"], trace_id=trace["trace_id"])


sentry_sdk.init(
    dsn="https://key@sentry.invalid/1",
    traces_sample_rate=1.0,
    transport=ToJournal,
    integrations=[DramatiqIntegration()],
)
broker = KafkaBroker(url=os.environ["KAFKA_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def fail(order: int) -> None:
    raise ValueError(f"no address for {order}")


@dramatiq.actor(throws=LookupError)
def expected(order: int) -> None:
    raise LookupError(order)


@dramatiq.actor
def work(order: int) -> None:
    note("done", order=order)


@dramatiq.actor(queue_name="packing")
def pack(order: int) -> None:
    note("packing", order=order, worker=os.environ["WORKER"])
    gate = Path(os.environ["JOURNAL"]).with_name("gate")
    while not gate.exists():
        time.sleep(0.02)

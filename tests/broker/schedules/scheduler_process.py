"""A scheduler in a process of its own, which can die at a given step.

    python -m tests.broker.schedules.scheduler_process BOOTSTRAP NAMESPACE SESSION_TIMEOUT_MS STEP

STEP is where it kills itself with SIGKILL: ``before`` or ``after`` one of ``firing``, ``message`` and
``state``, as in ``after-message``; or ``never``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from broker import KafkaBroker
from broker.produce.publisher import Publisher
from broker.produce.record import Record


def kind_of(records: Sequence[Record]) -> str:
    """Which of the three writes of an occurrence these records are."""
    keys = [record.key or b"" for record in records]
    if any(key.startswith(b"state:") for key in keys):
        return "state"
    if any(key.startswith(b"firing:") for key in keys):
        return "firing"
    return "other" if b"end" in keys else "message"


def die_at(step: str) -> None:
    """Let each publish of this process end it when its turn has come."""
    publish = Publisher.publish

    def doomed(self: Publisher, records: Sequence[Record]) -> dict[int, BaseException]:
        kind = kind_of(records) if records else "other"
        if step == f"before-{kind}":
            os.kill(os.getpid(), signal.SIGKILL)
        failures = publish(self, records)
        if step == f"after-{kind}":
            os.kill(os.getpid(), signal.SIGKILL)
        return failures

    Publisher.publish = doomed  # type: ignore[method-assign]


def main() -> None:
    bootstrap_servers, namespace, session_timeout_ms, step = sys.argv[1:]
    die_at(step)
    broker = KafkaBroker(bootstrap_servers, namespace=namespace, session_timeout_ms=int(session_timeout_ms))
    scheduler = broker.parts.new_scheduler()
    scheduler.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()

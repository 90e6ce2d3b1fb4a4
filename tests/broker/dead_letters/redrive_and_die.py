"""Redrives everything in a queue and kills itself with SIGKILL on the way.

    python -m tests.broker.dead_letters.redrive_and_die BOOTSTRAP_SERVERS NAMESPACE WHEN STEP

WHEN is ``before`` or ``after`` the STEP-th publish, or ``amid``: after the first of its records.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from broker import KafkaBroker
from broker.produce.publisher import Publisher
from broker.produce.record import Record

RATE_PER_S = 2.0


class DeadlyPublisher(Publisher):
    def __init__(self, publisher: Publisher, when: str, step: int) -> None:
        self._inner = publisher
        self._when = when
        self._left = step

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        self._left -= 1
        if self._left:
            return self._inner.publish(records)
        if self._when == "after":
            self._inner.publish(records)
        elif self._when == "amid":
            self._inner.publish(records[:1])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")


if __name__ == "__main__":
    bootstrap_servers, namespace, when, step = sys.argv[1:]
    broker = KafkaBroker(bootstrap_servers, namespace=namespace)
    dead_letters = broker.dead_letter_queue
    dead_letters._publisher = DeadlyPublisher(broker.parts.publisher, when, int(step))
    dead_letters.redrive("default", dry_run=False, reason="test", by="the first", rate_per_s=RATE_PER_S)

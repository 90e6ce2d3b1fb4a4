"""Replays everything in a queue and kills itself with SIGKILL on the way.

    python -m tests.broker.replay.replay_and_die BOOTSTRAP_SERVERS NAMESPACE GROUP_ID WHEN STEP

WHEN is ``before`` or ``after`` the STEP-th publish, or ``amid``: after the first of its records.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from broker import KafkaBroker
from broker.produce.record import Record

QUEUE = "default"
RATE_PER_S = 2.0


def die_at(broker: KafkaBroker, when: str, step: int) -> None:
    publisher: Any = broker.parts.publisher
    publish, left = publisher.publish, [step]

    def publish_or_die(records: Sequence[Record]) -> Any:
        left[0] -= 1
        if left[0]:
            return publish(records)
        if when != "before":
            publish(records if when == "after" else records[:1])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    publisher.publish = publish_or_die


if __name__ == "__main__":
    bootstrap_servers, namespace, group_id, when, step = sys.argv[1:]
    broker = KafkaBroker(bootstrap_servers, namespace=namespace, group_id=group_id)
    broker.declare_queue(QUEUE)
    die_at(broker, when, int(step))
    broker.replay(QUEUE, dry_run=False, reason="test", by="the first", rate_per_s=RATE_PER_S)

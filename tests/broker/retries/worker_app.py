"""A worker with one actor under a policy, in a process of its own. Each attempt is a line in a ledger.

python -m tests.broker.retries.worker_app BOOTSTRAP_SERVERS NAMESPACE LEDGER
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dramatiq
import tenacity
from dramatiq import Worker

from broker import KafkaBroker, TemporaryError

#: Long enough to be seen waiting.
WAIT_S = 3.0


def main(bootstrap_servers: str, namespace: str, ledger: str) -> None:
    broker = KafkaBroker(
        bootstrap_servers,
        namespace=namespace,
        group_id=f"{namespace}workers",
        session_timeout_ms=6_000,
        delay_index_dir=tempfile.mkdtemp(prefix=f"{namespace}index-"),
    )

    def note(state: tenacity.RetryCallState) -> None:
        with Path(ledger).open("a") as lines:
            lines.write(f"{state.args[0]} {state.attempt_number} {state.idle_for:g}\n")

    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(WAIT_S), before=note
    )

    @dramatiq.actor(broker=broker, retry=policy)
    def task(name: Any) -> None:
        raise TemporaryError("locked")

    Worker(broker, worker_timeout=100, worker_threads=4).start()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])

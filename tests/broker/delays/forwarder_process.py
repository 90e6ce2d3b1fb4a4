r"""A forwarder in a process of its own, which can die at a given step.

    python -m tests.broker.delays.forwarder_process \
        BOOTSTRAP NAMESPACE INDEX_DIR SESSION_TIMEOUT_MS STEP COUNT

STEP is where it kills itself with SIGKILL once it has forwarded COUNT messages: ``before-forward``,
``after-forward`` (nothing is noted yet), ``before-tombstones``, ``after-tombstones``, or ``never``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from broker.produce.publisher import Publisher
from broker.produce.record import Record
from tests.broker.delays.station import Station


class DoomedPublisher(Publisher):
    """Publishes as the real one does, and dies around a publish."""

    step = "never"
    count = 0
    delayed = ""
    forwarded = 0

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        forwards = sum(record.topic != self.delayed for record in records)
        if forwards and self.forwarded + forwards >= self.count:
            self._die_at("before-forward")
        if not forwards and self.forwarded >= self.count and records:
            self._die_at("before-tombstones")
        failures = super().publish(records)
        self.forwarded += forwards
        if forwards and self.forwarded >= self.count:
            self._die_at("after-forward")
        if not forwards and self.forwarded >= self.count and records:
            self._die_at("after-tombstones")
        return failures

    def _die_at(self, step: str) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class DoomedStation(Station):
    publisher_type = DoomedPublisher


def main() -> None:
    bootstrap, namespace, index_dir, session_timeout_ms, step, count = sys.argv[1:]
    station = DoomedStation(bootstrap, namespace, Path(index_dir))
    publisher = station.publisher
    assert isinstance(publisher, DoomedPublisher)
    publisher.step, publisher.count, publisher.delayed = step, int(count), station.topics.delayed
    station.start(int(session_timeout_ms))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()

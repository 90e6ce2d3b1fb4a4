"""Checks the settings of a worker's topics again at intervals."""

from __future__ import annotations

import logging
import threading

from dramatiq.errors import BrokerConnectionError

from ..kafka.errors import KafkaError
from ..kafka.topics import Topics
from ..process import clock

logger = logging.getLogger(__name__)

#: The interval of the checks. An operator may change a topic at any time.
CHECK_INTERVAL_S = 300.0


class PolicyWatch:
    """Checks the topics, on a thread that may wait for Kafka; the consumers and the forwarder may not.

    Where a worker writes reports, the thread of the reports calls :meth:`step`: without an answer from Kafka,
    there is no report either. Otherwise :meth:`start` starts a thread.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._stop = threading.Event()
        self._next_s = clock.monotonic_s() + CHECK_INTERVAL_S

    def start(self) -> None:
        threading.Thread(target=self._run, name="dramatiq-kafka-policies", daemon=True).start()

    def stop(self) -> None:
        """End the thread, without waiting for a request that it has sent."""
        self._stop.set()

    def step(self) -> None:
        """Check the topics if it is time. It waits for Kafka."""
        if clock.monotonic_s() < self._next_s or self._stop.is_set():
            return
        self._next_s = clock.monotonic_s() + CHECK_INTERVAL_S
        try:
            self._topics.check_again(unless=self._stop)
        except (KafkaError, BrokerConnectionError) as e:
            logger.info("The settings of the topics could not be checked; they will be later: %s", e)

    def _run(self) -> None:
        while not clock.wait(self._stop, max(0.0, self._next_s - clock.monotonic_s())):
            self.step()

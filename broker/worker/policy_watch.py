"""Checks the settings of a worker's topics again at intervals."""

from __future__ import annotations

import logging
import threading

from dramatiq.errors import BrokerConnectionError

from ..kafka.errors import KafkaError
from ..kafka.topics import Topics

logger = logging.getLogger(__name__)

#: The interval of the checks. An operator may change a topic at any time.
CHECK_INTERVAL_S = 300.0


class PolicyWatch:
    """The thread that checks the topics. It may wait for Kafka; the consumers and the forwarder may not."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dramatiq-kafka-policies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a request that it has sent."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(CHECK_INTERVAL_S):
            try:
                self._topics.check_again(unless=self._stop)
            except (KafkaError, BrokerConnectionError) as e:
                logger.info("The settings of the topics could not be checked; they will be later: %s", e)

"""Looks again now and then whether the topics that a worker uses keep what is put into them."""

from __future__ import annotations

import logging
import threading

from dramatiq.errors import BrokerConnectionError

from ..kafka.errors import KafkaError
from ..kafka.topics import Topics

logger = logging.getLogger(__name__)

#: How often it is looked. An operator, or a tool of theirs, may change a topic at any time.
CHECK_INTERVAL_S = 300.0


class PolicyWatch:
    """A thread that may wait for Kafka: neither a consumer's nor the forwarder's has the time."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dramatiq-kafka-policies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end. Nobody waits for what it asks Kafka at the moment."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(CHECK_INTERVAL_S):
            try:
                self._topics.check_again(unless=self._stop)
            except (KafkaError, BrokerConnectionError) as e:
                logger.info("The settings of the topics could not be checked; they will be later: %s", e)

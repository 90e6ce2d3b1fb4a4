"""Logs once when Kafka stops answering, and once when it answers again."""

from __future__ import annotations

import logging

from .protocol import ConsumerClient

logger = logging.getLogger(__name__)

#: The number of unanswered heartbeats after which Kafka counts as silent.
HEARTBEATS = 4
POLL_INTERVAL_S = 1.0


class HeartbeatMonitor:
    """Watches the answers to a consumer's heartbeats, which kafka-python sends independently of all other
    requests.

    A frozen or isolated Kafka closes no connection. kafka-python reports each request that times out, and not
    the common cause.

    Parameters:
      since_s: The time of the last answer for each silent queue. It outlives the consumer, which is replaced
        after an error.
    """

    def __init__(self, kafka: ConsumerClient, queue_name: str, since_s: dict[str, float]) -> None:
        self._kafka = kafka
        self._since_s = since_s
        self._queue_name = queue_name
        self._timeout_s = HEARTBEATS * kafka.config["heartbeat_interval_ms"] / 1000
        self._next_check_s = 0.0

    def check(self, now_s: float) -> None:
        """Log a change of the state. Most calls find no change."""
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + POLL_INTERVAL_S
        heartbeat = self._kafka.heartbeat()
        heard_s = max(heartbeat)
        silent_since_s = self._since_s.get(self._queue_name)
        if silent_since_s is None:
            # None are sent while the group is joined, which can take its time.
            if now_s - heard_s > self._timeout_s and not self._kafka.is_joining():
                self._since_s[self._queue_name] = heard_s
                logger.warning(
                    "Kafka has not answered the consumer of %r for %.0f s. Finished deliveries wait "
                    "here until it does.",
                    self._queue_name, now_s - heard_s,
                )  # fmt: skip
        elif heartbeat.last_answer_s > silent_since_s:
            logger.warning(
                "Kafka answers the consumer of %r again, after %.0f s.",
                self._queue_name, now_s - silent_since_s,
            )  # fmt: skip
            del self._since_s[self._queue_name]

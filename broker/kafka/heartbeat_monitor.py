"""Says once when Kafka stops answering, and once when it answers again."""

from __future__ import annotations

import logging

from .protocol import ConsumerClient

logger = logging.getLogger(__name__)

#: How many heartbeats have to go unanswered.
HEARTBEATS = 4
POLL_INTERVAL_S = 1.0


class HeartbeatMonitor:
    """Listens to the answers to a consumer's heartbeats, which kafka-python sends whatever else it does.

    A Kafka that is frozen, or cut off, closes no connection. kafka-python reports what times out, request by
    request, and not what that means.

    Parameters:
      since_s: When each silent queue was last answered. It outlives the consumer, which is replaced after an
        error.
    """

    def __init__(self, kafka: ConsumerClient, queue_name: str, since_s: dict[str, float]) -> None:
        self._kafka = kafka
        self._since_s = since_s
        self._queue_name = queue_name
        self._patience_s = HEARTBEATS * kafka.config["heartbeat_interval_ms"] / 1000
        self._next_look_s = 0.0

    def look(self, now_s: float) -> None:
        """Say what has changed; nearly always nothing has."""
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + POLL_INTERVAL_S
        heartbeat = self._kafka.heartbeat()
        heard_s = max(heartbeat)
        silent_since_s = self._since_s.get(self._queue_name)
        if silent_since_s is None:
            # None are sent while the group is joined, which can take its time.
            if now_s - heard_s > self._patience_s and not self._kafka.is_joining():
                self._since_s[self._queue_name] = heard_s
                logger.warning(
                    "Kafka has not answered the consumer of %r for %.0f s. What is finished waits here until "
                    "it does.",
                    self._queue_name, now_s - heard_s,
                )  # fmt: skip
        elif heartbeat.last_answer_s > silent_since_s:
            logger.warning(
                "Kafka answers the consumer of %r again, after %.0f s.",
                self._queue_name, now_s - silent_since_s,
            )  # fmt: skip
            del self._since_s[self._queue_name]

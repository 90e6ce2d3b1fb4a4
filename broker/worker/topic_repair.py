"""Keeps a worker from a queue whose topics lose messages, or that it may not use, until that is mended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..errors import NotAuthorized, TopicMisconfigured
from ..kafka.topic_policies import RECHECK_S

if TYPE_CHECKING:
    from ..broker import KafkaBroker

logger = logging.getLogger(__name__)

#: How often the topics of such a queue are looked at.
POLL_INTERVAL_S = 2 * RECHECK_S
#: How often such a queue is worth a line of Dramatiq's log, which has one for each consumer that fails.
SAY_AGAIN_S = 60.0


class TopicRepair:
    """The queues of a worker that are not consumed because of a topic's settings, or a missing right."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def ensure(self, broker: KafkaBroker, queue_name: str) -> None:
        """See to the topics that a worker of a queue needs, its lanes included where it has any.

        What is wrong with one is raised at once when it is news, for Dramatiq to log. It then makes another
        consumer every few seconds; those wait here until the topic is mended.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          TopicMisconfigured: When the settings of one lose messages.
          NotAuthorized: When one may not be seen, or not be created.
        """
        give_up_s = time.monotonic() + SAY_AGAIN_S
        while True:
            try:
                broker.topics.ensure(
                    broker.topics_of(queue_name),
                    beside=[broker.topics.lanes(queue_name)],
                    unless=broker.stop_asked,
                )
            except (TopicMisconfigured, NotAuthorized) as e:
                if self._said.get(queue_name) != str(e) or time.monotonic() >= give_up_s:
                    self._said[queue_name] = str(e)
                    raise
                if broker.stop_asked.wait(POLL_INTERVAL_S):
                    raise
            else:
                if self._said.pop(queue_name, None) is not None:
                    logger.warning("The topics of %r were mended; the queue is consumed.", queue_name)
                return

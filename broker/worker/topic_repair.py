"""Holds back a queue whose topics lose messages, or whose rights are missing, until that is corrected."""

from __future__ import annotations

import logging
from collections.abc import Collection

from ..errors import NotAuthorized, TopicMisconfigured
from ..kafka.topic_policies import RECHECK_S
from ..kafka.topics import Topics
from ..process import clock
from .shutdown import Shutdown

logger = logging.getLogger(__name__)

#: The interval in which the topics of such a queue are checked.
POLL_INTERVAL_S = 2 * RECHECK_S
#: The interval of the log lines about such a queue. Dramatiq logs one for each consumer that fails.
SAY_AGAIN_S = 60.0


class TopicRepair:
    """The queues of a worker that are not consumed because of a topic's settings, or a missing right."""

    def __init__(self, topics: Topics, shutdown: Shutdown) -> None:
        self._topics = topics
        self._shutdown = shutdown
        self._logged: dict[str, str] = {}

    def ensure(self, queue_name: str, topics: Collection[str], *, lanes_topic: str) -> None:
        """Create and check the topics that a worker of a queue needs, and check its lanes topic.

        A new error is raised immediately, for Dramatiq to log. Dramatiq then constructs another consumer
        every few seconds; that waits here until the topic is corrected.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          TopicMisconfigured: When the settings of a topic lose messages.
          NotAuthorized: When this client may not see a topic, or not create it.
        """
        give_up_s = clock.monotonic_s() + SAY_AGAIN_S
        while True:
            try:
                self._topics.ensure(topics, beside=[lanes_topic], unless=self._shutdown.asked)
            except (TopicMisconfigured, NotAuthorized) as e:
                if self._logged.get(queue_name) != str(e) or clock.monotonic_s() >= give_up_s:
                    self._logged[queue_name] = str(e)
                    raise
                if clock.wait(self._shutdown.asked, POLL_INTERVAL_S):
                    raise
            else:
                if self._logged.pop(queue_name, None) is not None:
                    logger.warning("The topics of %r were corrected; the queue is consumed.", queue_name)
                self._topics.warn_of_single_copies([*topics, lanes_topic])
                return

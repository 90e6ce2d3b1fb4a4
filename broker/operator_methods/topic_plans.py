"""The methods that plan topics and rights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import ParameterRefused
from ..kafka.topic_layout import TopicLayout
from ..kafka.topic_plan import TopicPlan, names_of, plan_topics
from ..parameters import (
    check_names,
    check_ranges,
)
from .base import OperatorBase


class TopicPlanMethods(OperatorBase):
    """Topics and rights for clusters where applications create nothing."""

    def plan_topics(
        self,
        *queue_names: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        retention_ms: int | None = None,
    ) -> TopicPlan:
        """The topics and the least rights that an application needs, compared with the cluster's topics. For
        clusters where applications create nothing. Nothing is created or changed.

        ``plan.topic_commands()`` and ``plan.acl_commands()`` are for Kafka's own tools;
        :meth:`apply_topics` creates the missing topics.

        Parameters:
          queue_names: The queues, which need not exist; by default the declared ones, and those with topics.
          partitions, replication_factor, retention_ms: As those of the broker, which are the defaults.

        Raises:
          ParameterRefused: When there is no queue, or a number is out of its range.
          InvalidQueueName: When there cannot be a queue of a name.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not describe one of the topics.
        """
        topics = self.parts.topics
        given = {
            "partitions": partitions,
            "replication_factor": replication_factor,
            "retention_ms": retention_ms,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        check_ranges(**changes)
        names = list(dict.fromkeys(queue_names)) or sorted({*self.queues, *topics.queue_names(self.queues)})
        if not names:
            raise ParameterRefused("name the queues of the plan: none is declared, and none exists")
        for name in names:
            check_names(queue_name=name)
            if name not in self.queues:
                topics.check_queue_name(name)
        return self._plan(names, replace(topics.layout, **changes))

    def apply_topics(self, plan: TopicPlan) -> TopicPlan:
        """Create the missing topics of a plan. Existing topics are not changed, and no right is granted.

        Returns:
          The same plan, compared with the topics that there are now.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create a topic.
          NotAuthorized: When this client may not create one. It needs CREATE on the topics.
        """
        if plan.missing:
            self.parts.topics.create([topic.name for topic in plan.missing], plan.layout)
        names = [topic.queue_name for topic in plan.topics if topic.queue_name is not None]
        return self._plan(list(dict.fromkeys(names)), plan.layout)

    def _plan(self, queue_names: Sequence[str], layout: TopicLayout) -> TopicPlan:
        topics, settings = self.parts.topics, self.parts.settings
        layout = topics.fitted(layout)
        return plan_topics(
            topics,
            queue_names,
            topics.states_of(names_of(topics, queue_names)),
            group_id=settings.group_id,
            servers=self.parts.clients.bootstrap_servers,
            layout=layout,
        )

"""The methods of the broker for operators: count, search, redrive, replay, pause, and look at workers."""

from __future__ import annotations

from ..schedules import Schedules
from .messages import MessageMethods
from .topic_plans import TopicPlanMethods
from .worker_commands import CommandMethods


class OperatorMethods(MessageMethods, CommandMethods, TopicPlanMethods):
    """The part of :class:`broker.KafkaBroker` that any process can use, without a worker and without actors.

    State is read from Kafka, and commands are written there. No worker is asked.
    """

    @property
    def schedules(self) -> Schedules:
        """The schedules of the namespace: ``put``, ``get``, ``list``, ``pause``, ``resume``, ``delete`` and
        ``run_now``; see ``docs/schedules.md``.
        """
        return self.parts.schedules

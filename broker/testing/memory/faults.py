"""The faults that a cluster in memory has on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ...kafka.errors import KafkaError


class Request(Enum):
    """The requests of Kafka's protocol that a fault may concern."""

    CONNECT = "connect"
    PRODUCE = "produce"
    FETCH = "fetch"
    LIST_OFFSETS = "list_offsets"
    EPOCH_ENDS = "epoch_ends"
    JOIN_GROUP = "join_group"
    LEAVE_GROUP = "leave_group"
    COMMIT = "commit"
    FETCH_OFFSETS = "fetch_offsets"
    METADATA = "metadata"
    CREATE_TOPICS = "create_topics"
    DESCRIBE_CONFIGS = "describe_configs"
    DESCRIBE_GROUPS = "describe_groups"
    DELETE_RECORDS = "delete_records"


#: The requests that change what the cluster holds.
WRITES = (Request.PRODUCE, Request.COMMIT, Request.LEAVE_GROUP, Request.CREATE_TOPICS, Request.DELETE_RECORDS)


class ProcessKilled(BaseException):
    """The process that uses a client was killed. No ``except Exception`` catches it.

    Every later call of the process's clients raises it, so that code on the way out has no effect either.
    Threads other than the main one get a KafkaConnectionError: there is nobody to catch this there.
    """


class Effect(Enum):
    """The point of a request at which a fault strikes."""

    REFUSED = "refused"
    ANSWER_LOST = "answer lost"
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"


@dataclass
class Fault:
    """A fault of the next requests that match.

    Attributes:
      request: The kind of request; None for every write.
      effect: A REFUSED request raises ``error`` and has no effect. A request whose answer is lost has its
        effect, and its sender hears nothing. KILLED_BEFORE and KILLED_AFTER kill the sending process, before
        and after the effect.
      topic: The topic that the request must concern; None for any.
      process: The process that must have sent it; None for any.
      skip: The number of matching requests that pass first.
      times: The number of requests that fail; None for all until the fault is removed.
    """

    request: Request | None
    effect: Effect
    error: Callable[[], KafkaError] | None = None
    topic: str | None = None
    process: object = None
    skip: int = 0
    times: int | None = 1

    def matches(self, request: Request, topic: str | None, process: object) -> bool:
        if self.process not in (None, process):
            return False
        if self.request is None:
            return request in WRITES
        return request is self.request and self.topic in (None, topic)


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        self._pending.append(fault)
        return fault

    def clear(self) -> None:
        self._pending.clear()

    def take(self, request: Request, topic: str | None, process: object) -> Fault | None:
        """The fault of a request, which counts as one of its times."""
        for fault in self._pending:
            if not fault.matches(request, topic, process):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._pending.remove(fault)
            return fault
        return None

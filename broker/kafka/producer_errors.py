"""Why Kafka has not taken a record yet, which kafka-python keeps to itself."""

from __future__ import annotations

from ..process import clock
from .errors import KafkaError, KafkaTimeoutError
from .types import TopicPartition


class ProducerErrors:
    """What Kafka answered last about each partition that a producer tries to write to.

    kafka-python tries again until the time for a batch is up, and then says only that it is. It is looked at
    on a path that a producer takes only when something went wrong.
    """

    def __init__(self) -> None:
        self._errors: dict[TopicPartition, tuple[float, BaseException]] = {}

    def note(self, partition: TopicPartition, error: BaseException) -> None:
        if not isinstance(error, KafkaTimeoutError):
            self._errors[partition] = clock.monotonic_s(), error

    def since(self, began_s: float, partition: TopicPartition) -> BaseException | None:
        """The last error about a partition that came after ``began_s`` (of ``clock.monotonic_s()``)."""
        at_s, error = self._errors.get(partition, (0.0, None))
        return error if at_s >= began_s else None


def timed_out(timeout: KafkaError, reason: BaseException | None) -> KafkaError:
    """``timeout``, with what Kafka answered last when it did."""
    if reason is None:
        return timeout
    told = KafkaTimeoutError(f"{_text(timeout)}; Kafka's last answer was {reason!r}")
    told.__cause__ = reason
    return told


def _text(error: KafkaError) -> str:
    return str(error.args[0]) if error.args else repr(error)

"""Kafka's errors about records that a producer still retries; kafka-python does not report them."""

from __future__ import annotations

from ..process import clock
from .errors import KafkaError, KafkaTimeoutError
from .types import TopicPartition


class ProducerErrors:
    """Kafka's last error about each partition that a producer writes to.

    kafka-python tries again until the timeout of the batch, and then reports only the timeout. The errors are
    noted on a path that a producer takes only after a failure, so sends without a failure cost nothing.
    """

    def __init__(self) -> None:
        self._errors: dict[TopicPartition, tuple[float, BaseException]] = {}

    def note(self, partition: TopicPartition, error: BaseException) -> None:
        if not isinstance(error, KafkaTimeoutError):
            self._errors[partition] = clock.monotonic_s(), error

    def since(self, began_s: float, partition: TopicPartition) -> BaseException | None:
        """The last error about a partition after ``began_s`` (of ``clock.monotonic_s()``)."""
        at_s, error = self._errors.get(partition, (0.0, None))
        return error if at_s >= began_s else None


def timed_out(timeout: KafkaError, reason: BaseException | None) -> KafkaError:
    """``timeout``, with Kafka's last error when there was one."""
    if reason is None:
        return timeout
    error = KafkaTimeoutError(f"{_text(timeout)}; Kafka's last answer was {reason!r}")
    error.__cause__ = reason
    return error


def _text(error: KafkaError) -> str:
    return str(error.args[0]) if error.args else repr(error)

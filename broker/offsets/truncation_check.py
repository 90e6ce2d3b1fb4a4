"""Asks the leaders of partitions whether their logs were truncated since they were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..kafka.leader_epochs import EpochEnd, EpochEnds
from ..kafka.protocol import ConsumerClient
from ..kafka.types import TopicPartition
from .committed_lanes import LogEnd
from .truncation import is_cut


class TruncationCheck:
    """A request about several logs, which the constructor sends.

    Parameters:
      ends: The ends up to which the logs were read, or written, at an earlier time. A log whose leader epoch
        is not known (-1) is not asked about.
    """

    def __init__(
        self, kafka: ConsumerClient, ends: Mapping[TopicPartition, LogEnd], *, timeout_ms: float
    ) -> None:
        self._ends = ends
        epochs = {partition: end.leader_epoch for partition, end in ends.items()}
        self._asked = EpochEnds(kafka, epochs, timeout_ms=timeout_ms)

    def cuts(self) -> dict[TopicPartition, int]:
        """Wait for the answers; return the truncated logs, each with the offset from which on it differs.

        Raises:
          KafkaError: When there is no answer in time.
        """
        return {
            partition: max(0, min(answer.end_offset, self._ends[partition].end))
            for partition, answer in self._asked.answers().items()
            if is_cut(*self._ends[partition], answer)
        }


def are_cut(
    kafka: ConsumerClient,
    partitions: Iterable[TopicPartition],
    ends: Sequence[Mapping[int, LogEnd]],
    *,
    timeout_ms: float,
) -> list[bool]:
    """Whether a topic was truncated below one of its ends, for each of several sets of earlier ends.

    Parameters:
      partitions: The partitions of the topic. The end of another one counts as cut.
      ends: Each set by partition number.

    Raises:
      KafkaError: When there is no answer in time.
    """
    there = {partition.partition: partition for partition in partitions}
    asked = {(there[p], end.leader_epoch) for known in ends for p, end in known.items() if p in there}
    answers: dict[tuple[TopicPartition, int], EpochEnd] = {}
    while asked:
        epochs = dict(asked)  # a request asks about one epoch of each partition
        found = EpochEnds(kafka, epochs, timeout_ms=timeout_ms).answers()
        answers.update({(partition, epochs[partition]): end for partition, end in found.items()})
        asked = asked - set(epochs.items())
    return [
        any(
            p not in there
            or ((answer := answers.get((there[p], epoch))) is not None and is_cut(end, epoch, answer))
            for p, (end, epoch) in known.items()
        )
        for known in ends
    ]

"""Tells of a delayed topic that has lost its tail, where the index cannot know what was forwarded."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..kafka.leader_epochs import EpochEnds
from ..kafka.protocol import ConsumerClient
from ..kafka.types import TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..offsets.committed_state import name_of, read_committed
from ..offsets.truncation import is_cut

logger = logging.getLogger(__name__)


def report_lost_tails(
    kafka: ConsumerClient, next_offsets: Mapping[TopicPartition, int], *, timeout_ms: int
) -> None:
    """Compare partitions with what their last forwarder has committed, and say which were cut since.

    An index that had read as far as that forwarder is compared by itself (see ``index_repair``).

    Parameters:
      next_offsets: Up to where the indexes of this process know their partitions.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    committed = {
        partition: LogEnd(found.offset, -1 if found.leader_epoch is None else found.leader_epoch)
        for partition, found in read_committed(kafka, next_offsets, timeout_ms=timeout_ms).items()
        if found.offset > next_offsets[partition]
    }
    epochs = {partition: end.leader_epoch for partition, end in committed.items()}
    for partition, answer in EpochEnds(kafka, epochs, timeout_ms=timeout_ms).answers().items():
        end = committed[partition].end
        if is_cut(*committed[partition], answer):
            cut = max(0, min(answer.end_offset, end))
            logger.error(
                "%s has lost its tail, as it does when a replica without it is elected (an unclean "
                "election), or was recreated: its last forwarder had read it up to offset %d, and from "
                "offset %d on it is another log. %d record(s) are gone: delays, and notes of what was "
                "forwarded. The index of this process begins at offset %d and knows of none of them. Delays "
                "that stood there do not run; those that were forwarded may run again.",
                name_of(partition), end, cut, end - cut, next_offsets[partition],
            )  # fmt: skip

"""Reports a delayed topic that has lost its tail, when the index cannot know the forwarded messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..kafka.protocol import ConsumerClient
from ..kafka.types import TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..offsets.committed_state import name_of, read_committed
from ..offsets.truncation_check import TruncationCheck

logger = logging.getLogger(__name__)


def report_lost_tails(
    kafka: ConsumerClient, next_offsets: Mapping[TopicPartition, int], *, timeout_ms: int
) -> None:
    """Compare partitions with the commits of their last forwarder, and report the truncated ones.

    An index that is as recent as that commit is repaired instead (see ``index_repair``).

    Parameters:
      next_offsets: The offsets up to which the indexes of this process have read their partitions.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    committed = {
        partition: LogEnd(found.offset, -1 if found.leader_epoch is None else found.leader_epoch)
        for partition, found in read_committed(kafka, next_offsets, timeout_ms=timeout_ms).items()
        if found.offset > next_offsets[partition]
    }
    for partition, cut in TruncationCheck(kafka, committed, timeout_ms=timeout_ms).cuts().items():
        end = committed[partition].end
        logger.error(
            "%s has lost its tail, as in an unclean election, or was recreated: its last forwarder had "
            "read it up to offset %d, and it differs from offset %d on. %d record(s) are gone: delays "
            "and tombstones. The index of this process ends at offset %d and knows none of them. Lost "
            "delays do not run; messages whose tombstones are lost may run again.",
            name_of(partition), end, cut, end - cut, next_offsets[partition],
        )  # fmt: skip

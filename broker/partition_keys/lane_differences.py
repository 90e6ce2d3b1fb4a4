"""How a lanes topic that has lost its tail differs from what the owners of a queue's partitions knew."""

from __future__ import annotations

from collections.abc import Mapping

from ..offsets.commit_metadata import CommitState
from ..offsets.committed_lanes import Differences, compare
from .waiting_store import WaitingStore


def lane_differences(log: WaitingStore, states: Mapping[int, CommitState]) -> dict[int, Differences]:
    """The differences, by partition of the queue. There are none where the topic is as it was.

    Parameters:
      log: The lanes topic, read to its end. It is read again when it has lost its tail.
      states: What the owners of the queue's partitions have committed.

    Raises:
      KafkaError, KafkaUnavailable: When Kafka does not answer.
    """
    lanes = {partition: said for partition, state in states.items() if (said := state.lanes) is not None}
    cut = log.are_cut([said.ends for said in lanes.values()]) if lanes else []
    if not any(cut):
        return {}
    ended = log.read_all_again()
    found: dict[int, Differences] = {}
    for (partition, said), is_cut in zip(lanes.items(), cut, strict=True):
        if is_cut:
            present = {sequence.offset for _, sequence, _, _ in log.waiting(partition)}
            done = {place.sequence.offset for place in ended if place.partition == partition}
            complete = [offset for offset in present if states[partition].is_complete(offset)]
            found[partition] = compare(said, present, done, complete)
    return found

"""Compares a truncated lanes topic with the committed lanes of its queue's partitions."""

from __future__ import annotations

from collections.abc import Mapping

from ..offsets.commit_metadata import CommitState
from ..offsets.committed_lanes import Differences, compare
from .waiting_store import WaitingStore


def lane_differences(store: WaitingStore, states: Mapping[int, CommitState]) -> dict[int, Differences]:
    """The differences, by partition of the queue; empty when the topic was not truncated.

    Parameters:
      store: The lanes topic, read to its end. It is read again when it was truncated.
      states: The committed states, by partition of the queue.

    Raises:
      KafkaError, KafkaUnavailable: When Kafka does not answer.
    """
    lanes = {
        partition: committed for partition, state in states.items() if (committed := state.lanes) is not None
    }
    cut = store.are_cut([committed.ends for committed in lanes.values()]) if lanes else []
    if not any(cut):
        return {}
    ended = store.read_all_again()
    found: dict[int, Differences] = {}
    for (partition, committed), is_cut in zip(lanes.items(), cut, strict=True):
        if is_cut:
            present = {sequence.offset for _, sequence, _, _ in store.waiting(partition)}
            done = {place.sequence.offset for place in ended if place.partition == partition}
            complete = [offset for offset in present if states[partition].is_complete(offset)]
            found[partition] = compare(committed, present, done, complete)
    return found

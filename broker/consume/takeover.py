"""Takes partitions over from their last owners, and again when their log was truncated or recreated."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from dramatiq.errors import BrokerConnectionError

from ..deliveries.assigned_partition import AssignedPartition, Capacity
from ..errors import NotAuthorized
from ..kafka.errors import CorruptRecordError, KafkaError, UnsupportedCodecError
from ..kafka.leader_epochs import EpochEnd, EpochEnds
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import is_denial
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper, explained
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_state import (
    RESTORE_TIMEOUT_MS,
    Restored,
    name_of,
    report_lost_tail,
    restore,
)
from ..offsets.truncation import ALL_OF_IT, forget_from
from ..partition_keys.lanes import Lanes
from ..process.backoff import Backoff
from ..reaper.kill_note import KillNote
from .committer import Committer
from .config import ConsumerParts
from .dispatcher import MAX_UNCOMMITTED, Dispatcher
from .owned_lanes import OwnedLanes
from .queue_rights import QueueRights

logger = logging.getLogger(__name__)

#: The pause before a failed read of the committed offsets is repeated.
RESTORE_BACKOFF_S = 0.5
#: The pauses between two attempts to use a lanes topic without the right to it.
LANES_DENIED_BACKOFF_S = 1.0
MAX_LANES_DENIED_BACKOFF_S = 5.0


class Takeover:
    """Makes assigned partitions of the partitions that Kafka assigns to one consumer.

    The rebalance listener calls :meth:`expect` and :meth:`take_away` on kafka-python's I/O thread. The
    consumer's thread calls the other methods.

    Parameters:
      kill_notes: Reads for which tasks workers of the group were killed lately.

    Attributes:
      unrestored: The partitions that Kafka has assigned and that are not restored. None of their records is
        read. ``InFlightDeliveries.lock`` guards changes.
    """

    def __init__(
        self,
        parts: ConsumerParts,
        kafka: ConsumerClient,
        skipper: UnreadableBatchSkipper,
        dispatcher: Dispatcher,
        committer: Committer,
        owned_lanes: OwnedLanes,
        capacity: Capacity,
        rights: QueueRights,
        *,
        kill_notes: Callable[[], Collection[KillNote]],
    ) -> None:
        self._kill_notes = kill_notes
        self.unrestored: set[TopicPartition] = set()
        self._clients = parts.clients
        self._in_flight = parts.in_flight
        self._kafka = kafka
        self._skipper = skipper
        self._dispatcher = dispatcher
        self._committer = committer
        self._owned_lanes = owned_lanes
        self._capacity = capacity
        self._rights = rights
        self._reported_replays: set[TopicPartition] = set()
        self._backoff = Backoff(RESTORE_BACKOFF_S)
        self._restore_failure = ""
        self._lanes_backoff = Backoff(LANES_DENIED_BACKOFF_S, MAX_LANES_DENIED_BACKOFF_S)
        #: Whether a partition may have closed lanes. It is asked at every message, and set on one thread.
        self._has_closed_lanes = False

    def expect(self, partitions: Iterable[TopicPartition]) -> None:
        """Note that Kafka has assigned partitions, and read nothing of them yet."""
        with self._in_flight.lock:
            self._kafka.pause(*partitions)
            self.unrestored.update(partitions)

    def take_away(self, partitions: Iterable[TopicPartition]) -> list[AssignedPartition]:
        """Remove partitions; return those that were taken over."""
        with self._in_flight.lock:
            self.unrestored.difference_update(partitions)
            for partition in partitions:
                self._skipper.forget(partition)
            return [a for p in list(partitions) if (a := self._dispatcher.remove(p)) is not None]

    def seconds_until_due(self) -> float:
        """The time until :meth:`step` is due; infinite when there is nothing to restore."""
        restore_s = self._backoff.remaining_s if self.unrestored else math.inf
        return min(restore_s, self._lanes_backoff.remaining_s if self._has_closed_lanes else math.inf)

    @property
    def is_due(self) -> bool:
        """Whether :meth:`step` is due."""
        return bool(self.unrestored or self._has_closed_lanes) and self.seconds_until_due() <= 0

    def step(self) -> None:
        """Take the unrestored partitions over, unless the last attempt failed a moment ago.

        None of their records is dispatched before this succeeds. Partitions whose lanes are closed are taken
        over again once the rights to the lanes topic are granted.
        """
        if self._has_closed_lanes and self._lanes_backoff.is_over:
            self._open_lanes(self._with_closed_lanes())
            self._has_closed_lanes = bool(self._with_closed_lanes())
        if not self.unrestored or not self._backoff.is_over:
            return
        with self._in_flight.lock:
            partitions = list(self.unrestored)
        try:
            remembered = self._in_flight.remembered(partitions)
            restored = restore(
                self._clients,
                self._kafka,
                partitions,
                remembered,
                reported_replays=self._reported_replays,
                kill_notes=self._kill_notes,
            )
            self._take_over(restored)
        except (KafkaError, BrokerConnectionError, ValueError) as e:
            # ValueError: the partition was revoked between the read and the seek.
            if isinstance(e, KafkaError | NotAuthorized) and is_denial(e):
                self._rights.note_denial(e)
            self._report_failure(partitions, e)
            self._backoff.fail()

    def _report_failure(self, partitions: list[TopicPartition], error: Exception) -> None:
        reason = f"The partitions {partitions} cannot be taken over yet: {explained(error)}"
        is_news = reason != self._restore_failure and isinstance(
            error, UnsupportedCodecError | CorruptRecordError
        )
        logger.log(logging.ERROR if is_news else logging.INFO, "%s", reason)
        self._restore_failure = reason

    def _take_over(self, restored: Mapping[TopicPartition, Restored]) -> None:
        states = {partition: found.state for partition, found in restored.items()}
        lanes = self._restore_lanes(states)
        taken = {
            partition: self._new_assigned_partition(
                partition, found, None if lanes is None else lanes[partition]
            )
            for partition, found in restored.items()
        }
        for partition, state in states.items():
            self._kafka.seek(partition, state.next_offset, state.leader_epoch)
        # Committed before the first dispatch, so that even a crash on the first record leaves a trace.
        if not self._committer.commit_now(taken.values()):
            self._backoff.fail()
            return
        with self._in_flight.lock:
            ours = self.unrestored.intersection(taken)  # without the partitions revoked meanwhile
            self.unrestored.difference_update(ours)
            for partition in ours:
                self._dispatcher.add(taken[partition])
        self._kafka.resume(*ours)

    def _restore_lanes(
        self, states: Mapping[TopicPartition, CommitState]
    ) -> dict[TopicPartition, Lanes[ConsumedRecord]] | None:
        """The lanes of partitions; None when the rights to the lanes topic are missing."""
        try:
            lanes = self._owned_lanes.restore(states, states)
        except NotAuthorized as e:
            self._rights.note_lanes_denial(e)
            self._lanes_backoff.fail()
            return None
        self._rights.note_lanes_granted()
        self._lanes_backoff.reset()
        return lanes

    def _with_closed_lanes(self) -> list[AssignedPartition]:
        return [a for a in list(self._dispatcher.assigned_partitions.values()) if a.lanes_are_closed]

    def _open_lanes(self, closed: Sequence[AssignedPartition]) -> None:
        """Take partitions over again whose lanes topic may be used now. Keyed records that were held are read
        again, and running messages are adopted.
        """
        if not closed:
            return
        with self._in_flight.lock:
            states = {assigned.partition: assigned.snapshot() for assigned in closed}
        try:
            lanes = self._restore_lanes(states)
        except (KafkaError, BrokerConnectionError) as e:
            logger.info("The lanes topic cannot be read yet: %s", explained(e))
            self._lanes_backoff.fail()
            return
        if lanes is None:
            return
        with self._in_flight.lock:
            for assigned in closed:
                partition = assigned.partition
                if self._dispatcher.assigned_partitions.get(partition) is not assigned:
                    continue  # it was revoked meanwhile
                state = assigned.snapshot()
                self.take_away([partition])
                restored = Restored(
                    state,
                    unclean=False,
                    end_offset=state.highest + 1,
                    probation_end=assigned.crash_counts.probation_end,
                    topic_id=assigned.topic_id,
                )
                self._dispatcher.add(self._new_assigned_partition(partition, restored, lanes[partition]))
                self._kafka.seek(partition, state.next_offset, state.leader_epoch)
                self._kafka.resume(partition)

    def _new_assigned_partition(
        self, partition: TopicPartition, restored: Restored, lanes: Lanes[ConsumedRecord] | None
    ) -> AssignedPartition:
        """An assigned partition. Without ``lanes`` no keyed record of it is dispatched."""
        state, probation_end = restored.state, restored.probation_end
        self._has_closed_lanes = self._has_closed_lanes or lanes is None
        if restored.unclean:
            probation_end = min(state.highest + 1 + MAX_UNCOMMITTED, restored.end_offset)
        return AssignedPartition(
            partition,
            state,
            epoch=self._in_flight.next_epoch(),
            capacity=self._capacity,
            probation_end=probation_end,
            lanes=lanes,
            lane_ends=partial(self._owned_lanes.ends_for, partition),
            lanes_are_closed=lanes is None,
            topic_id=restored.topic_id,
        )

    # A log that was truncated or recreated

    def take_over_again(self, assigned: AssignedPartition, cut: int, leader_epoch: int = -1) -> None:
        """Forget the state of a partition from ``cut`` on: the records that were read there are gone.

        The rest is taken over as from another worker. So running messages are adopted, and records that were
        read and not started are read again.

        Parameters:
          leader_epoch: The leader epoch of the record at ``cut`` now; -1 for unknown.
        """
        partition = assigned.partition
        self._kafka.refresh_metadata(RESTORE_TIMEOUT_MS)
        lanes = (
            self._restore_lanes({partition: assigned.snapshot()})
            if assigned.lanes_are_closed
            else self._owned_lanes.restore([partition])
        )
        common = self._end_of_common_epoch(assigned)
        topic_id = self._kafka.topic_id(partition.topic)
        with self._in_flight.lock:
            if partition not in self._dispatcher.assigned_partitions:
                return  # the partition was revoked meanwhile
            if topic_id != assigned.topic_id:
                cut = ALL_OF_IT
            left = assigned.snapshot()
            state, cut = _without_lost(left, cut, leader_epoch, common)
            position = max(assigned.expected, left.highest + 1)
            undone = sum(offset >= cut for offset in left.incomplete)
            undone += sum(record.offset >= cut for record in assigned.buffer)
            self.take_away([partition])
            restored = Restored(
                state,
                unclean=False,
                end_offset=cut,
                probation_end=assigned.crash_counts.probation_end,
                topic_id=topic_id,
            )
            self._dispatcher.add(
                self._new_assigned_partition(partition, restored, None if lanes is None else lanes[partition])
            )
            self._kafka.seek(partition, state.next_offset, state.leader_epoch)
            self._kafka.resume(partition)
        if cut == ALL_OF_IT:
            logger.error(
                "%s was read up to offset %d and is another log now: the topic was recreated. Its earlier "
                "records are gone; %d of them were read and not done.",
                name_of(partition), position, undone,
            )  # fmt: skip
        else:
            report_lost_tail(partition, position, cut, undone, state.next_offset)

    def _end_of_common_epoch(self, assigned: AssignedPartition) -> EpochEnd | None:
        """The end of the latest leader epoch that the log has in common with the records that were read."""
        partition = assigned.partition
        with self._in_flight.lock:
            epochs = {partition: assigned.snapshot().leader_epoch}
        return EpochEnds(self._kafka, epochs, timeout_ms=RESTORE_TIMEOUT_MS).answers().get(partition)


def _without_lost(
    left: CommitState, cut: int, leader_epoch: int, common: EpochEnd | None
) -> tuple[CommitState, int]:
    """The part of ``left`` that is true of a log with another record at ``cut``, and the offset from which on
    the log has other records than those that were read.

    Parameters:
      leader_epoch: The leader epoch of the record at ``cut`` now; -1 for unknown.
      common: The end of the latest leader epoch that the log has in common with ``left``; None for unknown.
    """
    # A log loses its tail in an election, and its later records have a later epoch.
    if 0 <= leader_epoch <= left.leader_epoch:
        cut = ALL_OF_IT
    common_epoch = -1
    if cut != ALL_OF_IT and common is not None and common.epoch >= 0:
        # The end of the common epoch may be lower: some lost records were not read again.
        cut = min(cut, common.end_offset)
        common_epoch = common.epoch if cut == common.end_offset else -1
    return forget_from(left, cut, leader_epoch=common_epoch), cut

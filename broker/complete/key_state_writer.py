"""Writes what the lanes topic keeps of a key beside its messages: a unique mark, or a pace."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from ..kafka.types import TopicPartition
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.record_format import KeyState, key_state_record, key_state_tombstone
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Watch


class KeyStateWriter:
    """Writes the states of one kind. The caller holds ``lock`` from its look at the states to the note of the
    result: a state that is written meanwhile would get the tombstone of its predecessor.

    Parameters:
      group: The ``group_id`` of the workers.

    Attributes:
      lock: Held by whoever writes.
    """

    def __init__(self, publisher: Publisher, acknowledged_ends: AcknowledgedEnds, *, group: str) -> None:
        self._publisher = publisher
        self._acknowledged_ends = acknowledged_ends
        self._group = group
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self.lock = threading.Lock()

    def write(self, lanes_topic: str, partition: int, key: bytes, state: KeyState, failure: str) -> None:
        """Write the state of a key.

        Parameters:
          partition: That of the queue.
          failure: Begins the error's text.

        Raises:
          BrokerConnectionError: When Kafka does not acknowledge it.
        """
        watch = self._watch(lanes_topic, state)
        record = key_state_record(lanes_topic, self._group, partition, key, state, watch=watch)
        publish_all(self._publisher, [record], failure)

    def drop(
        self, lanes_topic: str, partition: TopicPartition, states: Mapping[bytes, KeyState], failure: str
    ) -> None:
        """Write the tombstones of those of ``states`` that have a record. See :meth:`write`."""
        tombstones = [
            key_state_tombstone(
                lanes_topic,
                self._group,
                partition.partition,
                key,
                state,
                watch=self._watch(lanes_topic, state),
            )
            for key, state in states.items()
            if state.kept_in is not None
        ]
        publish_all(self._publisher, tombstones, failure)

    def _watch(self, lanes_topic: str, state: KeyState) -> Watch:
        return partial(self._note, lanes_topic, state)

    def _note(
        self, lanes_topic: str, state: KeyState, partition: int, offset: int | None, leader_epoch: int = -1
    ) -> None:
        state.kept_in = partition
        if offset is not None:
            self._acknowledged_ends.note(lanes_topic, partition, offset, leader_epoch)

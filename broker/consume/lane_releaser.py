"""Brings what waits in the lanes topic back to its queue, when it is due and its turn comes near."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq.errors import BrokerConnectionError
from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.structs import TopicPartition

from ..errors import KafkaUnavailable
from ..kafka.unreadable_batches import explained
from ..partition_keys.lanes import Lanes, State, Turn
from ..partition_keys.record_format import Place, Waiting, ticket, tombstone, waiting_record
from ..partition_keys.waiting_store import LanesLog
from .unreturnable_entries import Unreturnable

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..deliveries.assigned_partition import Assignment

logger = logging.getLogger(__name__)

#: How often it is looked whether something is due.
STEP_GAP_S = 0.02
#: Between attempts while Kafka is away, or refuses one.
BACKOFF_S = 1.0
#: After so long without a ticket that must have been read by now, another one is sent.
TICKET_TIMEOUT_S = 5.0
#: How often it is looked whether what waits was flushed.
LOOK_GAP_S = 2.0


class Releasing:
    """The lanes of one consumer's partitions, as far as they wait in Kafka. Driven by the consumer's thread.

    Only the owner of a partition writes about it, so what was read when it was taken over, and what it wrote
    itself since, is what is true. A flush from elsewhere is looked for now and then, and before a release.
    What was not read is no evidence: a leader that stood still shows its log as it was before.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        queue_name: str,
        kafka: KafkaConsumer,
        assignments: dict[TopicPartition, Assignment],
    ) -> None:
        self.next_step_s = 0.0
        self._broker = broker
        self._kafka = kafka
        self._assignments = assignments
        self._queue_topic = broker.topics.queue(queue_name)
        self._topic = broker.topics.lanes(queue_name)
        self._log = LanesLog(
            broker.clients,
            self._topic,
            broker.group_id,
            publisher=broker.following.publisher,
            written=broker.following.written,
            mend=self._mend,
        )
        self._unreturnable = Unreturnable(broker, queue_name)
        self._looked_s = 0.0
        self._released_s = 0.0
        self._failing = False

    def lanes_of(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Lanes[ConsumerRecord]]:
        """The lanes of partitions that were assigned, as their last owners left them.

        Raises:
          KafkaError, KafkaUnavailable: When Kafka does not answer.
        """
        lanes: dict[TopicPartition, Lanes[ConsumerRecord]] = {partition: Lanes() for partition in partitions}
        if self._kafka.partitions_for_topic(self._topic):  # asked over the connection that there is anyway
            # The last owner may have written the last of it to a leader that another one answers for here.
            self._log.catch_up_with_all()
            self._catch_up()
            for partition, restored in lanes.items():
                restored.restore(self._log.waiting(partition.partition))
        return lanes

    def step(self, now_s: float) -> None:
        """Release what may be released."""
        self.next_step_s = now_s + STEP_GAP_S
        if self._broker.stopping:
            return
        now_ms = time.time_ns() // 1_000_000
        for assignment in list(self._assignments.values()):
            if not assignment.lanes:
                continue
            with self._broker.ledger.lock:
                if self._has_lost_tickets(assignment, now_s):
                    assignment.lanes.release_again()
                turns = assignment.lanes.to_release(now_ms)
            if turns:
                self._release(assignment, turns, now_s)
            elif assignment.lanes.kept and now_s - self._looked_s > LOOK_GAP_S:
                self._look_for_flushed(now_s)

    def _look_for_flushed(self, now_s: float) -> None:
        """Nobody need wait for what was flushed from elsewhere until it would have been due."""
        self._looked_s = now_s
        try:
            self._catch_up()
        except (KafkaError, BrokerConnectionError) as e:
            self._report(e, now_s)

    def _catch_up(self) -> None:
        """Read what is new in the lanes topic, and forget what was flushed from there."""
        self._log.catch_up()
        if not self._log.ended:
            return
        with self._broker.ledger.lock:
            flushed = [place for place, key in list(self._log.ended.items()) if self._waits(place, key)]
        if not flushed:
            return
        # One that ran may wait again since the log was read, and the flush was of its last wait.
        self._log.catch_up()
        with self._broker.ledger.lock:
            for place in flushed:
                key = self._log.ended.pop(place, None)
                lanes = self._lanes_at(place)
                if key is not None and lanes is not None:
                    lanes.forget(key, place.order)

    def _mend(self, lost: list[Waiting], back: list[Waiting]) -> None:
        """Write again what the lanes topic has lost with its tail, as far as it is this consumer's to say.

        Raises:
          KafkaUnavailable: When Kafka does not take it. It is tried again before anything is released.
        """
        with self._broker.ledger.lock:
            kept = [(waiting, turn) for waiting in lost if (turn := self._turn_of(waiting)) is not None]
            done = [waiting for waiting in back if self._is_done(waiting)]
        following = self._broker.following
        records = [
            waiting_record(
                self._topic,
                waiting,
                bound_for=self._queue_topic,
                watch=partial(following.note, self._topic, turn),
            )
            for waiting, turn in kept
        ]
        records += [tombstone(self._topic, waiting.place, partition=waiting.kept_in) for waiting in done]
        failures = following.publisher.publish(records)
        if failures:
            reason = next(iter(failures.values()))
            raise KafkaUnavailable(f"What {self._topic!r} has lost could not be written again: {reason!r}")
        logger.error(
            "The topic %r has lost its tail: %d message(s) that wait were written to it again, and %d that "
            "are done were noted again.", self._topic, len(kept), len(done),
        )  # fmt: skip

    def _turn_of(self, waiting: Waiting) -> Turn[ConsumerRecord] | None:
        """A message's turn, while it is not done and this consumer answers for it."""
        lanes = self._lanes_at(waiting.place)
        return None if lanes is None else lanes.find(waiting.key, waiting.place.order)

    def _is_done(self, waiting: Waiting) -> bool:
        """Whether a message is done, and this consumer is the one to say so."""
        return self._lanes_at(waiting.place) is not None and self._turn_of(waiting) is None

    def _waits(self, place: Place, key: bytes) -> bool:
        """Whether what has ended in the lanes topic waits here still. What is done is put away."""
        lanes = self._lanes_at(place)
        turn = lanes.find(key, place.order) if lanes is not None else None
        if turn is None:
            del self._log.ended[place]
        # One that runs was flushed while it ran; or its retry was, before it is noted here that it waits.
        return turn is not None and turn.state is State.WAITING

    def _lanes_at(self, place: Place) -> Lanes[ConsumerRecord] | None:
        assignment = self._assignments.get(TopicPartition(self._queue_topic, place.partition))
        return None if assignment is None else assignment.lanes

    def seconds_until_due(self) -> float | None:
        """How long there is nothing to release, as far as is known; None for no time that is known."""
        due_ms = [due for a in self._assignments.values() if (due := a.lanes.next_due_ms()) is not None]
        return max(0.0, min(due_ms) / 1000 - time.time()) if due_ms else None

    def close(self) -> None:
        self._log.close()

    def _release(self, assignment: Assignment, turns: list[Turn[ConsumerRecord]], now_s: float) -> None:
        partition = assignment.partition.partition
        turns = [turn for turn in turns if self._place_of(turn, partition) not in self._unreturnable]
        places = [self._place_of(turn, partition) for turn in turns]
        failures: dict[int, Any] = {}
        try:
            self._catch_up()
            self._account_for(assignment, turns, places)
        except (KafkaError, BrokerConnectionError) as e:
            failures = dict.fromkeys(range(len(turns)), e)
            found = []
        else:
            found = [(turn, self._log.get(place)) for turn, place in zip(turns, places, strict=True)]
            tickets = [ticket(self._queue_topic, waiting) for _, waiting in found if waiting is not None]
            failures = self._broker.following.publisher.publish(tickets)
        with self._broker.ledger.lock:
            if not assignment.revoked:
                self._note(assignment, turns, found, failures)
        self._released_s = now_s
        self._report(next(iter(failures.values()), None), now_s)

    def _account_for(
        self, assignment: Assignment, turns: list[Turn[ConsumerRecord]], places: list[Place]
    ) -> None:
        """Make sure of those that wait here and are not in the log: no tombstone of theirs was read."""

        def missing() -> list[Place]:
            absent = [n for n, place in enumerate(places) if self._log.get(place) is None]
            with self._broker.ledger.lock:
                find = assignment.lanes.find
                return [places[n] for n in absent if find(turns[n].key, turns[n].order) is turns[n]]

        if not missing():
            return
        self._log.catch_up_with_all()
        self._catch_up()
        if lost := missing():
            logger.error(
                "%d message(s) that waited in their lanes are in the topic %r no more, and nothing says that "
                "they were flushed: it was recreated, or has lost its tail. Those behind them go on. The "
                "first is %s.",
                len(lost), self._topic, lost[0],
            )  # fmt: skip

    def _place_of(self, turn: Turn[ConsumerRecord], partition: int) -> Place:
        return Place(self._broker.group_id, partition, turn.order)

    def _note(
        self,
        assignment: Assignment,
        turns: list[Turn[ConsumerRecord]],
        found: list[tuple[Turn[ConsumerRecord], Any]],
        failures: dict[int, Any],
    ) -> None:
        lanes = assignment.lanes
        if not found:
            for turn in turns:
                lanes.recall(turn)
        number = 0
        for turn, waiting in found:
            if waiting is None:
                lanes.forget(turn.key, turn.order)  # it was flushed, or is lost
                continue
            turn.due_ms, turn.kept_in = waiting.due_ms, waiting.kept_in
            if isinstance(failures.get(number), MessageSizeTooLargeError):
                self._unreturnable.bury(assignment, turn, waiting, failures.pop(number))
            else:
                lanes.recall(turn) if number in failures else lanes.release(turn)
            number += 1

    def _has_lost_tickets(self, assignment: Assignment, now_s: float) -> bool:
        """Whether everything there is was read, and tickets that Kafka took were not among it."""
        return (
            assignment.lanes.awaits_tickets
            and not assignment.buffer
            and now_s - self._released_s > TICKET_TIMEOUT_S
            and (self._kafka.highwater(assignment.partition) or 0) <= assignment.expected
        )

    def _report(self, failure: BaseException | None, now_s: float) -> None:
        if failure is not None:
            self.next_step_s = now_s + BACKOFF_S
            if not self._failing:
                logger.warning(
                    "What waits in the lanes cannot be brought back for now: %s", explained(failure)
                )
        elif self._failing:
            logger.info("What waits in the lanes is brought back again.")
        self._failing = failure is not None

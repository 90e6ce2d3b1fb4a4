"""Messages of every kind, sent without a pause and counted, and the books about them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dramatiq.errors import BrokerConnectionError

from tests.chaos.arena import Arena
from tests.chaos.test_keys import STRIDE, judge
from tests.waiting import wait_until

KEYS = 8
#: Tasks without a key have numbers above those of all keys. A key with a failed send is not used any more.
MAX_KEYS = 100
FIRST_UNKEYED = MAX_KEYS * STRIDE
#: The pause between two rounds. A round has a message of each kind.
ROUND_S = 0.06
#: The rounds between two counts of waiting messages.
ROUNDS_OF_COUNT = 10
DELAY_MS = 300
DEADLINE_S = 120.0


@dataclass
class Phase:
    """What was sent in one phase, and what the tasks have done.

    Attributes:
      sent: The numbers that Kafka has acknowledged.
      failures: The errors of sends.
      failed_counts: The errors of counts.
      longest_s: The longest send, in seconds.
    """

    sent: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    failed_counts: list[str] = field(default_factory=list)
    longest_s: float = 0.0


class Load:
    """Sends plain, delayed, retried and keyed messages from a thread, while a phase lasts.

    Parameters:
      after: The load on the same ledger that this one follows. It has other keys, and other numbers.
    """

    def __init__(self, play: Arena, *, after: Load | None = None) -> None:
        self.play = play
        first_key = 0 if after is None else MAX_KEYS // 2
        self._numbers = count(FIRST_UNKEYED + first_key * STRIDE)
        self._new_keys = count(first_key)
        #: The next number of each key in use.
        self._next_of_key = [next(self._new_keys) * STRIDE for _ in range(KEYS)]
        self._turns = count()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.phase = Phase()
        #: The executions that the tasks' own failures cause.
        self._retries: int = 0 if after is None else after._retries
        self._excused: set[str] = set()

    def start(self) -> None:
        self.phase = Phase()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> Phase:
        """End the phase, whose last sends end with it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        return self.phase

    def wait_for_more(self, number: int = 60) -> None:
        """Wait until as many further messages were sent and done as a calm second or two has."""
        enough = len(self.phase.sent) + number
        wait_until(lambda: len(self.phase.sent) >= enough, deadline_s=DEADLINE_S, what="more sends")
        done = len(self.play.ledger.read().done)
        wait_until(
            lambda: len(self.play.ledger.read().done) >= done + number / 2,
            deadline_s=DEADLINE_S,
            what="more tasks to be done",
        )

    def settle(self, scenario: str, *, may_overlap: bool = False) -> None:
        """Wait until all that was acknowledged is done, check the order of keys, and print the books.

        Parameters:
          may_overlap: Whether a worker lost its partitions without knowing it: it may have run messages of a
            key beside the new owner until then (see ``partition_keys/README.md``).
        """
        phase = self.stop()
        wait_until(
            lambda: phase.sent <= self.play.ledger.read().done.keys(),
            deadline_s=DEADLINE_S,
            what=f"{len(phase.sent)} tasks to be done",
        )
        self.play.wait_until_left(0, deadline_s=DEADLINE_S)
        entries = self.play.ledger.read()
        # A worker that is cut off from its coordinator loses its partitions, and lives.
        verdict = judge(self.play.ledger.path, only=range(FIRST_UNKEYED), may_repeat=True)
        repeats = sum(entries.started.values()) - len(entries.started) - self._retries
        print(
            f"\n{scenario}: acknowledged {len(phase.sent)} = done; failed sends {len(phase.failures)}; "
            f"longest send {phase.longest_s:.1f} s; executions beyond the first so far {repeats}"
        )
        assert not self.play.dead_letters()
        assert verdict.violations == []
        if may_overlap:
            self._excused.update(verdict.overlaps)
        assert set(verdict.overlaps) <= self._excused

    def _run(self) -> None:
        while not self._stop.wait(ROUND_S):
            number = next(self._numbers)
            self._send([self.play.message("work", number)])
            number = next(self._numbers)
            self._send([self.play.message("work", number)], delay=DELAY_MS)
            number = next(self._numbers)
            self._send([self.play.message("flaky", number, failures=1)], retries=1)
            turn = next(self._turns)
            self._send_keyed(turn % KEYS)
            if turn % ROUNDS_OF_COUNT == 0:
                self._count()

    def _count(self) -> None:
        try:
            self.play.waiting()
        except BrokerConnectionError as e:
            self.phase.failed_counts.append(str(e))

    def _send_keyed(self, turn: int) -> None:
        number = self._next_of_key[turn]
        message = self.play.message("in_order", number)
        keyed = message.copy(options={"partition_key": f"key-{number // STRIDE}"})
        is_sent = self._send([keyed], retries=0 if number % 5 else 2)
        self._next_of_key[turn] = number + 1 if is_sent else next(self._new_keys) * STRIDE

    def _send(self, messages: Iterable[Any], *, delay: int | None = None, retries: int = 0) -> bool:
        """Send messages; False when that failed, and each may arrive nevertheless."""
        began_s = time.monotonic()
        messages = list(messages)
        try:
            self.play.broker.enqueue_many(messages, delay=delay)
        except BrokerConnectionError as e:
            self.phase.failures.append(str(e))
            return False
        finally:
            self.phase.longest_s = max(self.phase.longest_s, time.monotonic() - began_s)
        self.phase.sent.update(message.args[0] for message in messages)
        self._retries += retries
        return True

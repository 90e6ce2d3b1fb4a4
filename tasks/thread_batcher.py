"""Batching the concurrent calls of many threads."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: The delay with which a waiting thread sees an exception that Dramatiq raises in it (a time limit, a
#: shutdown).
SLICE_S = 0.1
#: The threads of a batch of this size are expected to call again within this time.
MANY = 8
BACK_WITHIN_S = 0.05
#: The longest wait for further calls of an expected batch. A batch has a fixed cost, whatever its size.
BATCH_LINGER_S = 0.005
#: A pause without a new call ends that wait.
PAUSE_S = 0.001


class _Call(Generic[Item, Answer]):
    """One thread's call.

    ``done`` is a plain lock, held until there is an answer. An exception raised in a thread that waits for a
    Condition (an Event holds one) can leave the Condition's lock held for ever; this lock is dropped with
    its call.
    """

    __slots__ = ("abandoned", "answer", "done", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | BaseException | None = None
        self.abandoned = False
        self.done = threading.Lock()
        self.done.acquire()


class ThreadBatcher(Generic[Item, Answer]):
    """Passes the items of concurrent calls to ``work`` in batches, in the order of the calls.

    One thread works. A call that finds it idle forms a batch alone. Calls that arrive during a batch form
    the next one; after a large batch the thread waits a moment for more. Thread-safe; every wait can be
    interrupted.

    Parameters:
      work: Takes the items and returns an answer for each, in their order: a value, or the exception for its
        caller. An exception that it raises goes to every caller of the batch.
      name: Of the thread.
      max_items: Items in one batch at most.
      pause: Sleeps for a number of seconds.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Answer | BaseException]],
        *,
        name: str,
        max_items: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work = work
        self._name = name
        self._max_items = max_items
        self._pause = pause
        self._waiting: SimpleQueue[_Call[Item, Answer]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def answer(self, item: Item) -> Answer:
        """Return the answer for one item. The work of an interrupted call may still be done.

        Raises:
          BaseException: The work's exception for this item.
        """
        call: _Call[Item, Answer] = _Call(item)
        self.start()
        self._waiting.put(call)
        try:
            while not call.done.acquire(timeout=SLICE_S):
                self.start()
        except BaseException:
            call.abandoned = True
            raise
        if isinstance(call.answer, BaseException):
            raise call.answer
        return cast("Answer", call.answer)

    def start(self) -> None:
        """Start the thread unless it runs. The first call does so, too.

        Two concurrent calls may start a thread each. That is harmless, and needs no lock that an interrupt
        could leave locked.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            if self._pid != os.getpid():  # in a forked child, the queue holds its parent's calls
                self._pid, self._waiting = os.getpid(), SimpleQueue()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        busy_until_s = 0.0
        while True:
            batch = self._gather(busy_until_s)
            wanted = [call for call in batch if not call.abandoned]
            if wanted:
                self._work_on(wanted)
            busy_until_s = time.monotonic() + BACK_WITHIN_S if len(batch) >= MANY else 0.0

    def _gather(self, busy_until_s: float) -> list[_Call[Item, Answer]]:
        """Wait for a call; return it with the queued calls and, until ``busy_until_s``, with new ones."""
        batch = [self._waiting.get()]
        self._take_into(batch)
        if (now_s := time.monotonic()) < busy_until_s:
            until_s = now_s + BATCH_LINGER_S
            while len(batch) < self._max_items and time.monotonic() < until_s:
                self._pause(PAUSE_S)
                if not self._take_into(batch):
                    break
        return batch

    def _take_into(self, batch: list[_Call[Item, Answer]]) -> int:
        """Move queued calls into the batch; return their number."""
        before = len(batch)
        while len(batch) < self._max_items:
            try:
                batch.append(self._waiting.get_nowait())
            except Empty:
                break
        return len(batch) - before

    def _work_on(self, calls: list[_Call[Item, Answer]]) -> None:
        answers: Sequence[Answer | BaseException]
        try:
            answers = self._work([call.item for call in calls])
            if len(answers) != len(calls):
                raise RuntimeError(f"{self._name} has {len(answers)} answers for {len(calls)} calls")
        except BaseException as error:  # noqa: BLE001 - the callers get it, and this thread must continue
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.answer = answer
            call.done.release()

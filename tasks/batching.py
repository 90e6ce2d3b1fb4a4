"""What runs at the same time is done together: many threads' calls, one piece of work."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: How long a waiting thread is deaf to what Dramatiq raises in it (a time limit, a shutdown).
SLICE_S = 0.1
#: After a batch of so many their threads are about to call again; those that are not back by then do not.
MANY = 8
BACK_WITHIN_S = 0.05
#: So long a batch then gathers, while calls keep coming in. A batch has its price, whatever its size.
BATCH_LINGER_S = 0.005
#: In which nobody calls when nobody is coming.
PAUSE_S = 0.001


class _Call(Generic[Item, Answer]):
    """One thread's call.

    ``done`` is a plain lock, held until there is an answer. An exception raised in a thread that waits for a
    Condition, which is what an Event is, can leave its lock held for good; this one goes with its call.
    """

    __slots__ = ("abandoned", "answer", "done", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | BaseException | None = None
        self.abandoned = False
        self.done = threading.Lock()
        self.done.acquire()


class Batcher(Generic[Item, Answer]):
    """Hands what many threads ask for at the same time to ``work``, in the order in which they came.

    One thread works. A call that finds it idle is worked on at once and alone; a batch is what has gathered
    while it was busy and, after a large batch, for a moment more. Thread-safe, and every wait can be
    interrupted.

    Parameters:
      work: takes the items and returns an answer for each, in their order: a value, or the exception that its
        caller is to get. What it raises goes to every caller of the batch.
      max_items: in one batch.
      pause: sleeps for so many seconds.
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
        """Return the answer for one item. Interrupted, what it waits for may still be done.

        Raises:
          BaseException: what the work had for this item.
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
        """Start the thread unless it runs. Without this the first call does.

        Two calls that find none start one each, which does no harm and needs no lock that an interrupt could
        leave locked.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            if self._pid != os.getpid():  # what waits in a forked child are its parent's calls
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
        """Wait for a call and return it with those that are there or, until ``busy_until_s``, come along."""
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
        """Add what waits; return how many calls that were."""
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
        except BaseException as error:  # noqa: BLE001 - it is the callers', and this thread has to go on
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.answer = answer
            call.done.release()

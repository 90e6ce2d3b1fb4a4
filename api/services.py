"""What the handlers stand on: the blocking world, reached through batchers and threads.

Everything here is bounded: what cannot be queued is refused at once, with 503 and Retry-After.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from api.batching import Batcher, Work, in_threads
from api.health import Readiness
from api.outcome_news import OutcomeNews
from api.transactions import read_ads, read_results
from db.items import AdFields
from db.outcome_news import OutcomeListener
from db.submissions import Submission
from settings import get_settings
from tasks.prediction import Verdict, predict
from tasks.resources import engine, make_connections_of_loop
from tasks.submission import HandIn, Reply, submit_in_loop, submit_many

Result = TypeVar("Result")

#: Groups side by side: one is at PostgreSQL while Python works on the other. More only makes them smaller.
GROUPS_AT_ONCE = 2
#: In one statement.
MAX_GROUP = 500
#: Calls of other kinds, and bulk requests, each with statements of its own; and those that wait for a turn.
CALLS_AT_ONCE = 2
MAX_CALLS_WAITING = 64
#: Ads in one predict_proba: a few tens of milliseconds, which the next group waits.
MAX_SCORED = 64
MAX_SCORES_WAITING = 1_000
HEALTH_THREADS = 3


class Stopping(Exception):
    """The server stops before the answer is there; what was asked for may happen or not."""


class Services:
    """Made when the server starts, in its event loop; closed when the last request is answered."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(3 * GROUPS_AT_ONCE + CALLS_AT_ONCE, thread_name_prefix="database")
        self._health_threads = ThreadPoolExecutor(HEALTH_THREADS, thread_name_prefix="health")
        self._news_thread = ThreadPoolExecutor(1, thread_name_prefix="news")
        # One: scoring holds Python's lock for the most part, and a second would only take the loop's turns.
        self._scoring_thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        settings = get_settings()
        max_waiting = settings.api_max_waiting
        self._connections = make_connections_of_loop()
        self._submit_with_keys: Work[HandIn, Reply] = in_threads(submit_many, self._threads)
        self._submissions: Batcher[HandIn, Reply] = Batcher(
            self._submit_together, at_once=GROUPS_AT_ONCE, max_items=MAX_GROUP, max_waiting=max_waiting
        )
        self.results: Batcher[int, Submission | None] = Batcher(
            in_threads(read_results, self._threads),
            at_once=GROUPS_AT_ONCE,
            max_items=MAX_GROUP,
            max_waiting=max_waiting,
        )
        self._ads: Batcher[int, AdFields | None] = Batcher(
            in_threads(read_ads, self._threads),
            at_once=1,
            max_items=MAX_SCORED,
            max_waiting=MAX_SCORES_WAITING,
        )
        self._verdicts: Batcher[AdFields, Verdict] = Batcher(
            in_threads(predict, self._scoring_thread),
            at_once=1,
            max_items=MAX_SCORED,
            max_waiting=MAX_SCORES_WAITING,
        )
        self._calls: Batcher[Callable[[], Any], Any] = Batcher(
            in_threads(_call, self._threads),
            at_once=CALLS_AT_ONCE,
            max_items=1,
            max_waiting=MAX_CALLS_WAITING,
        )
        self.news = OutcomeNews(
            lambda: OutcomeListener(engine()), self._news_thread, max_waiting=settings.api_max_long_polls
        )
        self.readiness = Readiness(self._health_threads)

    async def submit(self, request: HandIn) -> Reply:
        """Hand an ad in, together with whoever else does."""
        return await self._submissions.answer(request)

    async def _submit_together(self, requests: list[HandIn]) -> Sequence[Reply | Exception]:
        """Keys take a transaction of statements. Without any it is one, which the loop sends itself."""
        if any(request.key for request in requests):
            return await self._submit_with_keys(requests)
        return await submit_in_loop(self._connections, requests)

    async def submit_bulk(self, request: HandIn) -> Reply:
        """Hand many ads in: a statement of their own."""
        [reply] = await self.call(partial(submit_many, [request]))
        return reply

    async def verdict(self, ad: AdFields) -> Verdict:
        """Score an ad, now.

        Raises:
          ModelUnavailable, CannotScore: as they say.
        """
        return await self._verdicts.answer(ad)

    async def stored_ad(self, item_id: int) -> AdFields | None:
        """Return an ad, None when there is none."""
        return await self._ads.answer(item_id)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Call a function that blocks, when it is its turn.

        Raises:
          TooManyWaiting: at once, when the queue is full.
        """
        result: Result = await self._calls.answer(function)
        return result

    async def outcome(self, task_id: int, *, wait_s: float) -> Submission | None:
        """Return the submission as soon as it is not pending any more, and as it is after ``wait_s``.

        Raises:
          TooManyWaiting: at once.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        with self.news.of(task_id) as news:
            while True:
                news.clear()
                submission = await self.results.answer(task_id)
                is_last = loop.time() >= deadline_s or self.news.is_closed
                if submission is None or submission.status != "pending" or is_last:
                    return submission
                try:
                    async with asyncio.timeout_at(deadline_s):
                        await news.wait()
                except TimeoutError:
                    pass  # one last look: the news may have been lost with a connection

    def load_model(self) -> None:
        """Have the model loaded now, so that the first who asks for a verdict does not wait for that."""
        self._scoring_thread.submit(predict, [])

    def give_up(self) -> None:
        """Answer whoever still waits that the server stops."""
        for batcher in (self._submissions, self.results, self._ads, self._verdicts, self._calls):
            batcher.give_up(Stopping())

    def close(self) -> None:
        """Let the threads go. One that still waits for a server which does not answer is not waited for."""
        self.news.close()
        self._connections.close()
        for threads in (self._threads, self._health_threads, self._news_thread, self._scoring_thread):
            threads.shutdown(wait=False, cancel_futures=True)


def _call(functions: list[Callable[[], Any]]) -> list[Any]:
    return [function() for function in functions]

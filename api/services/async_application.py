"""The application as the event loop calls it: through batches and threads.

Every queue is bounded: a full one refuses a call at once, with 503 and Retry-After.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar

from api.services.async_batcher import AsyncBatcher, TooManyWaiting, in_threads
from api.services.hang_up import HangUp
from api.services.key_ring import KeyRing
from api.services.outcome_notifier import OutcomeNotifier
from api.services.rate_limits import Quotas, TakenAds
from api.services.readiness import Readiness
from db import api_keys
from db.api_keys import ApiKey, Taken, Unused, Wanted
from db.errors import DatabaseUnavailable
from db.in_loop import LoopConnections
from db.items import AdFields
from db.submissions import Submission
from settings import Settings
from submissions.application import Application
from submissions.callers import ANYBODY, Caller
from submissions.database import Database
from submissions.explaining import ExplainedVerdict
from submissions.predicting import Verdict
from submissions.queries import SubmissionDetails
from submissions.submitting import Reply, SubmissionRequest

Result = TypeVar("Result")

#: Concurrent batches: PostgreSQL works on one and Python on the other. More batches would only be smaller.
MAX_BATCHES = 2
#: Items in one statement.
MAX_BATCH_ITEMS = 500
#: Concurrent calls of other kinds and bulk requests, each with statements of its own; and those that wait.
MAX_CALLS = 2
MAX_CALLS_WAITING = 64
#: Ads in one predict_proba. It takes a few tens of milliseconds, for which the next batch waits.
MAX_SCORED = 64
MAX_SCORES_WAITING = 1_000
#: Explanations that wait. One runs at a time: a long ad takes half a second, mostly with Python's lock.
MAX_EXPLANATIONS_WAITING = 16
HEALTH_THREADS = 3


class Stopping(Exception):
    """The server stops before the answer is there; the request may have its effect or not."""


class AsyncApplication:
    """Batches and threads around an :class:`Application`. For one event loop.

    The server makes it at start-up and closes it after the last request.
    """

    def __init__(self, application: Application, settings: Settings) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(3 * MAX_BATCHES + MAX_CALLS + 1, thread_name_prefix="database")
        self._health_threads = ThreadPoolExecutor(HEALTH_THREADS, thread_name_prefix="health")
        self._listening_thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        # One: scoring mostly holds Python's lock, so a second thread would only take time from the event
        # loop.
        self._scoring_thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._explaining_thread = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        max_waiting = settings.api_max_waiting
        self._connections = application.database.make_loop_connections()
        # One statement of the loop.
        self._submissions: AsyncBatcher[SubmissionRequest, Reply] = AsyncBatcher(
            partial(application.submitter.submit_in_loop, self._connections),
            max_concurrency=MAX_BATCHES,
            max_items=MAX_BATCH_ITEMS,
            max_waiting=max_waiting,
        )
        # A transaction on a thread, which also needs the table of keys: requests without one do not wait for
        # it.
        self._keyed_submissions: AsyncBatcher[SubmissionRequest, Reply] = AsyncBatcher(
            in_threads(application.submitter.submit_each, self._threads),
            max_concurrency=MAX_BATCHES,
            max_items=MAX_BATCH_ITEMS,
            max_waiting=max_waiting,
        )
        self._recalls: AsyncBatcher[SubmissionRequest, Reply | None] = AsyncBatcher(
            in_threads(application.submitter.recall, self._threads),
            max_concurrency=1,
            max_items=MAX_BATCH_ITEMS,
            max_waiting=max_waiting,
        )
        self._results: AsyncBatcher[int, Submission | None] = AsyncBatcher(
            in_threads(application.queries.read, self._threads),
            max_concurrency=MAX_BATCHES,
            max_items=MAX_BATCH_ITEMS,
            max_waiting=max_waiting,
        )
        self._ads: AsyncBatcher[int, AdFields | None] = AsyncBatcher(
            in_threads(application.ads.read, self._threads),
            max_concurrency=1,
            max_items=MAX_SCORED,
            max_waiting=MAX_SCORES_WAITING,
        )
        self._verdicts: AsyncBatcher[AdFields, Verdict] = AsyncBatcher(
            in_threads(application.predictor.predict, self._scoring_thread),
            max_concurrency=1,
            max_items=MAX_SCORED,
            max_waiting=MAX_SCORES_WAITING,
        )
        self._calls: AsyncBatcher[Callable[[], Any], Any] = AsyncBatcher(
            in_threads(_call, self._threads),
            max_concurrency=MAX_CALLS,
            max_items=1,
            max_waiting=MAX_CALLS_WAITING,
        )
        self._details: AsyncBatcher[tuple[int, Caller], SubmissionDetails | None] = AsyncBatcher(
            in_threads(application.queries.details_each, self._threads),
            max_concurrency=1,
            max_items=1,
            max_waiting=MAX_CALLS_WAITING,
        )
        self._explanations: AsyncBatcher[tuple[int, Caller], ExplainedVerdict] = AsyncBatcher(
            in_threads(application.explainer.explain_each, self._explaining_thread),
            max_concurrency=1,
            max_items=1,
            max_waiting=MAX_EXPLANATIONS_WAITING,
        )
        self._notifier = OutcomeNotifier(
            application.database.listen_for_outcomes,
            application.database.with_outcome,
            self._listening_thread,
            max_waiting=settings.api_max_long_polls,
        )
        keys = _KeysInLoop(application.database, self._connections)
        self.key_ring = KeyRing(keys)
        self._quotas = Quotas(keys, max_waiting=max_waiting)
        self.readiness = Readiness(application.health, self._health_threads)

    async def submit(self, request: SubmissionRequest) -> Reply:
        """Submit an ad, in one batch with the concurrent requests, of which all or none have a key."""
        return await (self._keyed_submissions if request.key else self._submissions).answer(request)

    async def submit_bulk(self, request: SubmissionRequest) -> Reply:
        """Submit many ads, in a statement of their own."""
        [reply] = await self.call(lambda application: application.submitter.submit([request]))
        return reply

    async def recall(self, request: SubmissionRequest) -> Reply | None:
        """Return the reply to a repetition of a request with a key; None if the key is new.

        Nothing is submitted.
        """
        return await self._recalls.answer(request)

    async def take_from_quota(self, caller: Caller, count: int) -> TakenAds | None:
        """Take ads from the quota of the caller's key; None when it has none.

        Raises:
          LimitExceeded: There are fewer left. None is taken.
        """
        if caller.key_id is None or caller.quota_per_day is None:
            return None
        return await self._quotas.take(caller.key_id, caller.quota_per_day, count)

    async def give_back_to_quota(self, taken: TakenAds, count: int) -> None:
        """Return ads that were taken and not handed in. Without PostgreSQL they stay taken."""
        try:
            await self._quotas.give_back(taken, count)
        except (DatabaseUnavailable, TooManyWaiting):
            return

    async def result(self, task_id: int, caller: Caller = ANYBODY) -> Submission | None:
        """Return a submission, or None for one that is unknown or that the caller does not see."""
        found = await self._results.answer(task_id)
        return found if found and caller.sees(found.client_id) else None

    async def outcome(
        self, task_id: int, caller: Caller = ANYBODY, *, wait_s: float, hang_up: HangUp | None = None
    ) -> Submission | None:
        """Return a submission as soon as it is not pending, and after ``wait_s`` as it is.

        One that the caller does not see is None at once.

        Parameters:
          hang_up: Of the client. It then gets the submission as it is.

        Raises:
          TooManyWaiting: At once.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        hang_up = hang_up or HangUp()
        with self._notifier.subscribe(task_id) as notified:
            hang_up.call = notified.set
            while True:
                notified.clear()
                submission = await self.result(task_id, caller)
                is_last = loop.time() >= deadline_s or self._notifier.is_closed or hang_up.is_over
                if submission is None or submission.status != "pending" or is_last:
                    return submission
                try:
                    async with asyncio.timeout_at(deadline_s):
                        await notified.wait()
                except TimeoutError:
                    pass  # one last query: a notification is lost with its connection

    async def verdict(self, ad: AdFields) -> Verdict:
        """Score an ad now.

        Raises:
          ModelUnavailable: There is no model.
          CannotScore: The model failed on this ad.
        """
        return await self._verdicts.answer(ad)

    async def stored_ad(self, item_id: int) -> AdFields | None:
        """Return an ad, or None for an unknown id."""
        return await self._ads.answer(item_id)

    async def explanation(self, task_id: int, caller: Caller = ANYBODY) -> ExplainedVerdict:
        """Explain a verdict, on a thread of its own: nothing else waits for it.

        Raises:
          NoSuchTask, NothingToExplain, ModelUnavailable: As :meth:`Explainer.explain` does.
        """
        return await self._explanations.answer((task_id, caller))

    async def details(self, task_id: int, caller: Caller) -> SubmissionDetails | None:
        """Return all of a submission, or None for one that is unknown or that the caller does not see.

        On a thread of its own: of the tables that it reads, others need none.
        """
        return await self._details.answer((task_id, caller))

    async def call(self, use_case: Callable[[Application], Result]) -> Result:
        """Call a blocking use case of the application in a thread.

        Raises:
          TooManyWaiting: At once, when the queue is full.
        """
        result: Result = await self._calls.answer(partial(use_case, self._application))
        return result

    def load_model(self) -> None:
        """Load the model in the background, so that the first verdict does not wait for it."""
        self._scoring_thread.submit(self._application.predictor.predict, [])

    def release_waiting(self) -> None:
        """Answer every client that waits for an outcome with the present result."""
        self._notifier.close()

    def fail_waiting(self) -> None:
        """Raise :class:`Stopping` for every unanswered call."""
        for batcher in (
            self._submissions,
            self._keyed_submissions,
            self._recalls,
            self._results,
            self._ads,
            self._verdicts,
            self._explanations,
            self._details,
            self._calls,
            self._quotas,
        ):
            batcher.fail_all(Stopping())

    def close(self) -> None:
        """Release the threads without waiting for one that a hanging server blocks."""
        self._notifier.close()
        self._connections.close()
        for threads in (
            self._threads,
            self._health_threads,
            self._listening_thread,
            self._scoring_thread,
            self._explaining_thread,
        ):
            threads.shutdown(wait=False, cancel_futures=True)


class _KeysInLoop:
    """The statements about keys, from the event loop."""

    def __init__(self, database: Database, connections: LoopConnections) -> None:
        self._database = database
        self._connections = connections

    async def fingerprint(self) -> tuple[str | None, datetime]:
        with self._database.log_outages():
            return await api_keys.fingerprint_in_loop(self._connections)

    async def keys(self) -> Sequence[ApiKey]:
        with self._database.log_outages():
            return await api_keys.read_keys_in_loop(self._connections)

    async def take(self, wanted: Sequence[Wanted]) -> dict[str, Taken]:
        with self._database.log_outages():
            return await api_keys.take_in_loop(self._connections, wanted)

    async def give_back(self, unused: Sequence[Unused]) -> dict[tuple[str, date], int]:
        with self._database.log_outages():
            return await api_keys.give_back_in_loop(self._connections, unused)


def _call(functions: list[Callable[[], Any]]) -> list[Any]:
    return [function() for function in functions]

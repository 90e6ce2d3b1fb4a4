"""What the handlers stand on: the blocking world, reached through batchers and threads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from api.batching import Batcher
from api.health import Readiness
from db import submissions
from db.submissions import Submission
from tasks.resources import database
from tasks.submission import submit_many

#: Groups side by side: one is at PostgreSQL while Python works on the other. More only makes them smaller.
GROUPS_AT_ONCE = 2
#: In one statement.
MAX_GROUP = 500
#: Requests that wait for a group of their kind: a few seconds' worth, which a client still stands.
MAX_WAITING = 4_000
HEALTH_THREADS = 2


class Services:
    """Made when the server starts, in its event loop; closed when the last request is answered."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2 * GROUPS_AT_ONCE, thread_name_prefix="database")
        self._health_threads = ThreadPoolExecutor(HEALTH_THREADS, thread_name_prefix="health")
        self.submissions: Batcher[int, int | None] = Batcher(
            submit_many, self._threads, at_once=GROUPS_AT_ONCE, max_items=MAX_GROUP, max_waiting=MAX_WAITING
        )
        self.results: Batcher[int, Submission | None] = Batcher(
            _read_results, self._threads, at_once=GROUPS_AT_ONCE, max_items=MAX_GROUP, max_waiting=MAX_WAITING
        )
        self.readiness = Readiness(self._health_threads)

    def close(self) -> None:
        """Let the threads go. One that still waits for a server which does not answer is not waited for."""
        for threads in (self._threads, self._health_threads):
            threads.shutdown(wait=False, cancel_futures=True)


def _read_results(task_ids: list[int]) -> Sequence[Submission | None]:
    with database() as connection:
        found = submissions.read_by_task_ids(connection, task_ids)
    return [found.get(task_id) for task_id in task_ids]

"""Readiness: the dependencies that are missing, checked concurrently."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from submissions.health import KAFKA, MODEL, POSTGRESQL, HealthChecks, Missing

#: A dependency without an answer by then counts as missing.
DEADLINE_S = 5.0


class Readiness:
    """Checks PostgreSQL, Kafka and the model concurrently; callers share the checks. For one event loop."""

    def __init__(self, checks: HealthChecks, executor: Executor) -> None:
        self._checks = [
            _SharedCheck(executor, checks.database, POSTGRESQL),
            _SharedCheck(executor, checks.kafka, KAFKA),
            _SharedCheck(executor, checks.model, MODEL),
        ]

    async def missing(self) -> Missing:
        """Return the missing dependencies, within :data:`DEADLINE_S`."""
        answers = await asyncio.gather(*(check.answer() for check in self._checks))
        return {name: reason for answer in answers for name, reason in answer.items()}


class _SharedCheck:
    """One blocking check. It runs once at a time, so that a hanging server does not use up the threads."""

    def __init__(self, executor: Executor, check: Callable[[], Missing], name: str) -> None:
        self._executor = executor
        self._check = check
        self._name = name
        self._under_way: asyncio.Future[Missing] | None = None

    async def answer(self) -> Missing:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.get_running_loop().run_in_executor(self._executor, self._check)
        done, _ = await asyncio.wait([self._under_way], timeout=DEADLINE_S)
        if not done:
            return {self._name: f"no answer within {DEADLINE_S:.0f} s"}
        return self._under_way.result()

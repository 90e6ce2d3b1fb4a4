"""Can this process do its work? What is missing, by name, asked of the servers themselves."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from db import schema
from db.errors import DatabaseError
from tasks.health import kafka_trouble
from tasks.prediction import model_trouble
from tasks.resources import engine

#: A server that has said nothing by then counts as missing.
DEADLINE_S = 5.0

POSTGRESQL = "postgresql"
MIGRATIONS = "migrations"
KAFKA = "kafka"
MODEL = "model"

#: What is missing and why, by name; empty when nothing is.
Missing = dict[str, str]


class Readiness:
    """Asks for PostgreSQL, Kafka and the model side by side; who asks meanwhile shares the answer. For one
    event loop."""

    def __init__(self, executor: Executor) -> None:
        self._questions = [
            _Question(executor, _missing_of_database, POSTGRESQL),
            _Question(executor, _missing_of_kafka, KAFKA),
            _Question(executor, _missing_of_model, MODEL),
        ]

    async def missing(self) -> Missing:
        """Return what is missing, within :data:`DEADLINE_S`."""
        answers = await asyncio.gather(*(question.answer() for question in self._questions))
        return {name: reason for answer in answers for name, reason in answer.items()}


class _Question:
    """One blocking question, under way at most once, so that a server which hangs does not eat up threads."""

    def __init__(self, executor: Executor, ask: Callable[[], Missing], name: str) -> None:
        self._executor = executor
        self._ask = ask
        self._name = name
        self._under_way: asyncio.Future[Missing] | None = None

    async def answer(self) -> Missing:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.get_running_loop().run_in_executor(self._executor, self._ask)
        done, _ = await asyncio.wait([self._under_way], timeout=DEADLINE_S)
        if not done:
            return {self._name: f"no answer within {DEADLINE_S:.0f} s"}
        return self._under_way.result()


def _missing_of_database() -> Missing:
    try:
        absent = schema.missing(engine())
    except DatabaseError as error:
        return {POSTGRESQL: str(error)}
    return {MIGRATIONS: f"not there: {', '.join(absent)}; run make migrate"} if absent else {}


def _missing_of_kafka() -> Missing:
    trouble = kafka_trouble()
    return {KAFKA: trouble} if trouble else {}


def _missing_of_model() -> Missing:
    trouble = model_trouble()
    return {MODEL: trouble} if trouble else {}

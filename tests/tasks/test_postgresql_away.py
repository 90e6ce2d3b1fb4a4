"""PostgreSQL away with a deep backlog: nothing fails because of it, and everything goes on by itself."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from broker import KafkaBroker
from db.engine import make_engine
from db.outbox import Unpublished
from dev.postgres import PostgresServer
from submissions.message import message_of
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Worker
from tests.tasks.test_outbox import records_in
from tests.tasks.waits import wait_for_line, wait_until_all_done
from tests.waiting import wait_until

StartWorker = Callable[..., Worker]

BACKLOG = int(os.environ.get("BACKLOG", "3000"))
OUTAGE_S = float(os.environ.get("OUTAGE_S", "2"))
#: What one worker of four threads has in hand at most: eight read ahead, and what its threads run.
IN_HAND = 12


@pytest.fixture
def engine(postgres_server: PostgresServer) -> Iterator[Engine]:
    """A PostgreSQL to be harmed, with three ads."""
    engine = make_engine(postgres_server.url("moderation"))
    load_sample_ads(engine, 3)
    yield engine
    engine.dispose()


def fill(engine: Engine, kafka: KafkaBroker, count: int) -> None:
    """A backlog of submissions whose messages are in Kafka."""
    item_ids = [1 + number % 3 for number in range(count)]
    message_ids = submit(engine, item_ids, lease_s=3600)
    kafka.enqueue_many(
        message_of(Unpublished(message_id, 0, item_id))
        for message_id, item_id in zip(message_ids, item_ids, strict=True)
    )


def done(engine: Engine) -> int:
    [(count,)] = execute(engine, "SELECT count(*) FROM moderation_results WHERE status = 'completed'")
    assert isinstance(count, int)
    return count


def stay_away(seconds: float) -> None:
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() - began_s >= seconds, deadline_s=seconds + 10, what="the outage")


@pytest.mark.timeout(int(300 + OUTAGE_S))
@pytest.mark.parametrize("harm", ["killed", "frozen"])
def test_with_a_deep_backlog_no_task_fails_and_no_attempt_is_used_up(
    harm: str,
    postgres_server: PostgresServer,
    engine: Engine,
    start_worker: StartWorker,
    own_kafka: KafkaBroker,
    env: dict[str, str],
) -> None:
    fill(engine, own_kafka, BACKLOG)
    worker = start_worker(
        DATABASE_URL=postgres_server.url("moderation"),
        # Soon noticed, and longer than any statement takes on a busy machine: a late one costs an attempt.
        DATABASE_STATEMENT_TIMEOUT_S="3",
        DATABASE_CONNECT_TIMEOUT_S="1",
    )
    wait_until(lambda: done(engine) >= 20, deadline_s=60, what="the first verdicts")
    if harm == "killed":
        postgres_server.kill()
    else:
        postgres_server.pause()
    wait_for_line(worker, "PostgreSQL cannot be used")
    stay_away(OUTAGE_S)
    if harm == "killed":
        postgres_server.start()
    else:
        postgres_server.resume()
    wait_for_line(worker, "PostgreSQL can be used again")
    wait_until(lambda: done(engine) == BACKLOG, deadline_s=120, what="all verdicts")
    wait_until_all_done(own_kafka)
    log = worker.child.tail(100_000)
    assert log.count("PostgreSQL cannot be used") == 1
    assert log.count("PostgreSQL can be used again") == 1
    assert "Failed to process" not in log
    assert "Retrying" not in log
    # What it had in hand went back to the queue, and then it took no more.
    assert records_in(env) <= BACKLOG + 2 * IN_HAND
    assert list(own_kafka.dead_letters("moderation")) == []

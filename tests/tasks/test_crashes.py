"""Workers that die or stop in the middle of a task."""

from collections.abc import Callable
from contextlib import closing

from sqlalchemy import Engine

from broker import KafkaBroker
from db.outbox import Unpublished
from dev.server import Server
from submissions.message import message_of
from tests.db.rows import execute, submission_of, submit
from tests.service import Worker
from tests.tasks.conftest import broker_in
from tests.tasks.waits import wait_for_a_lock, wait_for_line, wait_for_outcome, wait_until_all_done

StartWorker = Callable[..., Worker]


def test_a_worker_killed_in_the_middle_of_a_task_is_made_up_for_once(
    start_worker: StartWorker, own_kafka: KafkaBroker, own_database: Engine
) -> None:
    worker = start_worker()
    [message_id] = submit(own_database)
    with own_database.begin() as lock:  # the worker reads the ad and waits
        lock.exec_driver_sql("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        own_kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
        wait_for_a_lock(own_database)
        worker.child.kill()
    found = submission_of(own_database, message_id)
    assert found is not None
    assert found.status == "pending"
    start_worker()
    assert wait_for_outcome(own_database, message_id).status == "completed"
    wait_until_all_done(own_kafka)
    assert execute(own_database, "SELECT count(*) FROM moderation_results") == [(1,)]


def test_a_worker_killed_while_it_writes_a_verdict_is_made_up_for_once(
    start_worker: StartWorker, own_kafka: KafkaBroker, own_database: Engine
) -> None:
    worker = start_worker()
    [message_id] = submit(own_database)
    with own_database.begin() as lock:  # the worker has scored the ad and waits for the row
        lock.exec_driver_sql("SELECT * FROM moderation_results FOR UPDATE")
        own_kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
        wait_for_a_lock(own_database)
        worker.child.kill()
    start_worker()
    first = wait_for_outcome(own_database, message_id)
    assert first.status == "completed"
    wait_until_all_done(own_kafka)
    assert submission_of(own_database, message_id) == first


def test_a_worker_killed_after_a_verdict_and_before_its_ack_changes_nothing_by_doing_it_again(
    start_worker: StartWorker, own_database: Engine, kafka_server: Server, env: dict[str, str]
) -> None:
    env["KAFKA_BOOTSTRAP_SERVERS"] = kafka_server.address
    worker = start_worker()
    [message_id] = submit(own_database)
    with closing(broker_in(env)) as kafka:
        with own_database.begin() as lock:
            lock.exec_driver_sql("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
            wait_for_a_lock(own_database)
            kafka_server.pause()  # no offset can be committed any more
        first = wait_for_outcome(own_database, message_id)
        worker.child.kill()
        kafka_server.resume()
        start_worker()
        wait_until_all_done(kafka)
    assert submission_of(own_database, message_id) == first
    assert execute(own_database, "SELECT count(*) FROM moderation_results") == [(1,)]


def test_a_process_that_was_frozen_in_a_task_changes_nothing_when_it_wakes_up(
    start_worker: StartWorker, own_kafka: KafkaBroker, own_database: Engine
) -> None:
    stale = start_worker(KAFKA_SESSION_TIMEOUT_MS="6000")
    [message_id] = submit(own_database)
    with own_database.begin() as lock:
        lock.exec_driver_sql("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        own_kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
        wait_for_a_lock(own_database)
        stale.child.pause()
    start_worker()  # is given what the frozen one had, and is not held up by it
    first = wait_for_outcome(own_database, message_id)
    assert first.status == "completed"
    execute(
        own_database, "UPDATE items SET description = '', images_qty = 0"
    )  # another verdict, if it counted
    stale.child.resume()
    [after] = submit(own_database)
    own_kafka.enqueue(message_of(Unpublished(after, 0, 1)))
    wait_for_outcome(own_database, after)
    wait_until_all_done(own_kafka)
    assert submission_of(own_database, message_id) == first


def test_a_worker_that_is_told_to_stop_finishes_what_it_runs(
    start_worker: StartWorker, own_kafka: KafkaBroker, own_database: Engine
) -> None:
    worker = start_worker()
    [message_id] = submit(own_database)
    with own_database.begin() as lock:
        lock.exec_driver_sql("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        own_kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
        wait_for_a_lock(own_database)
        worker.child.ask_to_stop()
        wait_for_line(worker, "Stopping worker process")
    assert worker.child.wait(40) == 0
    found = submission_of(own_database, message_id)
    assert found is not None
    assert found.status == "completed"

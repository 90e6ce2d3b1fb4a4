"""The outbox: a message is sent by whoever holds the lease, and noted once Kafka has it."""

import threading
from collections.abc import Iterable

import pytest
from sqlalchemy import Engine

from db import outbox, submissions
from db.engine import transaction
from db.outbox import Unpublished
from db.submissions import Outcome
from tests.db.rows import execute, load_sample_ads, submit
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def ads(database: Engine) -> None:
    load_sample_ads(database, 3)


def claim(engine: Engine, *, limit: int = 100, lease_s: float = 30.0) -> list[str]:
    with transaction(engine) as connection:
        return [one.message_id for one in outbox.claim_due(connection, limit=limit, lease_s=lease_s)]


def mark(engine: Engine, message_ids: Iterable[str], *, generation: int = 0) -> None:
    with transaction(engine) as connection:
        outbox.mark_published(connection, [Unpublished(one, generation, 1) for one in message_ids])


def unpublished(engine: Engine) -> int:
    [(count,)] = execute(engine, "SELECT count(*) FROM moderation_results WHERE publish_after IS NOT NULL")
    assert isinstance(count, int)
    return count


def test_a_row_under_lease_is_left_to_its_inserter(database: Engine) -> None:
    submit(database, lease_s=30)
    assert claim(database) == []


def test_a_row_whose_lease_ran_out_is_claimed_once(database: Engine) -> None:
    [message_id] = submit(database, lease_s=0)
    assert claim(database) == [message_id]
    assert claim(database) == []


def test_a_claim_whose_sender_died_can_be_claimed_again(database: Engine) -> None:
    [message_id] = submit(database, lease_s=0)
    claim(database, lease_s=0.05)
    assert wait_until(lambda: claim(database), deadline_s=60, what="the lease to run out") == [message_id]


def test_a_claim_carries_what_the_message_needs(database: Engine) -> None:
    submit(database, [3], lease_s=0)
    execute(database, "UPDATE moderation_results SET generation = 2, message_id = 'm'")
    with transaction(database) as connection:
        assert outbox.claim_due(connection, limit=1, lease_s=1) == [Unpublished("m", 2, 3)]


def test_the_oldest_are_claimed_first_and_no_more_than_asked(database: Engine) -> None:
    message_ids = [submit(database, lease_s=0)[0] for _ in range(4)]
    assert set(claim(database, limit=3)) == set(message_ids[:3])


def test_relays_side_by_side_claim_different_rows_without_waiting(database: Engine) -> None:
    submit(database, [1, 2, 3], lease_s=0)
    with transaction(database) as first:
        mine = outbox.claim_due(first, limit=2, lease_s=30)
        theirs: list[str] = []
        other = threading.Thread(target=lambda: theirs.extend(claim(database)))
        other.start()
        other.join(60)
        assert not other.is_alive()
        assert len(mine) == 2
        assert len(theirs) == 1
        assert not {one.message_id for one in mine} & set(theirs)


def test_a_published_row_is_never_claimed(database: Engine) -> None:
    message_ids = submit(database, [1, 2], lease_s=0)
    mark(database, message_ids)
    assert claim(database) == []
    assert unpublished(database) == 0


def test_an_outcome_takes_the_row_out_of_the_outbox(database: Engine) -> None:
    [message_id] = submit(database, lease_s=0)
    with transaction(database) as connection:
        submissions.write_outcomes(connection, [Outcome(message_id, 0, 1, True, 0.5)])
    assert unpublished(database) == 0


def test_the_late_word_of_an_earlier_send_does_not_hide_a_redrive(database: Engine) -> None:
    [message_id] = submit(database, lease_s=0)
    execute(database, "UPDATE moderation_results SET generation = 1")
    mark(database, [message_id], generation=0)
    assert claim(database) == [message_id]


def test_a_row_inserted_by_hand_is_due_at_once(database: Engine) -> None:
    execute(database, "INSERT INTO moderation_results (item_id) VALUES (1)")
    assert len(claim(database)) == 1


def test_a_finished_row_inserted_by_hand_is_not_sent(database: Engine) -> None:
    execute(
        database,
        "INSERT INTO moderation_results (item_id, status, is_violation, probability)"
        " VALUES (1, 'completed', true, 0.5)",
    )
    assert claim(database) == []
    assert unpublished(database) == 0


def test_when_kafka_lost_its_log_what_is_pending_is_sent_again_and_nothing_else(database: Engine) -> None:
    pending, done = submit(database, [1, 2])
    mark(database, [pending, done])
    with transaction(database) as connection:
        submissions.write_outcomes(connection, [Outcome(done, 0, 2, True, 0.5)])
        assert outbox.publish_pending_again(connection) == 1
    assert claim(database) == [pending]

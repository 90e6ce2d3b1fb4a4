"""Submissions: accepted for ads that exist, given one outcome each, read back as they are."""

import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from db import submissions
from db.engine import transaction
from db.errors import DatabaseRefused
from db.submissions import MAX_ERROR_CHARACTERS, MAX_ID, NewSubmission, Outcome
from tests.db.rows import execute, load_sample_ads, submission_of, submit
from tests.examples import examples
from tests.waiting import wait_until


def completed(message_id: str, *, generation: int = 0, probability: float = 0.75) -> Outcome:
    return Outcome(message_id, generation, 1, is_violation=True, probability=probability)


def failed(message_id: str, *, generation: int = 0, error: str = "no such ad") -> Outcome:
    return Outcome(message_id, generation, 1, error_message=error)


def write(engine: Engine, *outcomes: Outcome) -> set[str]:
    with transaction(engine) as connection:
        return submissions.write_outcomes(connection, outcomes)


def redrive(engine: Engine, message_id: str) -> None:
    execute(
        engine,
        """UPDATE moderation_results SET status = 'pending', generation = generation + 1, is_violation = NULL,
           probability = NULL, error_message = NULL, processed_at = NULL WHERE message_id = :message_id""",
        message_id=message_id,
    )


def test_only_ads_that_exist_get_a_row(database: Engine) -> None:
    load_sample_ads(database, 2)
    with transaction(database) as connection:
        new = [
            NewSubmission("a", 2),
            NewSubmission("b", 77),
            NewSubmission("c", MAX_ID),
            NewSubmission("d", 1),
        ]
        task_ids = submissions.insert_pending(connection, new, lease_s=30)
    assert set(task_ids) == {"a", "d"}
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(2,)]


def test_the_same_ad_twice_is_two_submissions(database: Engine) -> None:
    load_sample_ads(database)
    with transaction(database) as connection:
        new = [NewSubmission("a", 1), NewSubmission("b", 1)]
        task_ids = submissions.insert_pending(connection, new, lease_s=30)
    assert len(set(task_ids.values())) == 2


def test_a_new_submission_is_pending_and_says_nothing_else(database: Engine) -> None:
    load_sample_ads(database)
    [message_id] = submit(database)
    found = submission_of(database, message_id)
    assert found is not None
    assert (found.status, found.item_id, found.generation) == ("pending", 1, 0)
    assert (found.is_violation, found.probability, found.error_message, found.processed_at) == (None,) * 4


def test_the_first_outcome_wins(database: Engine) -> None:
    load_sample_ads(database)
    [message_id] = submit(database)
    assert write(database, completed(message_id)) == {message_id}
    before = submission_of(database, message_id)
    assert write(database, completed(message_id, probability=0.1)) == set()
    assert write(database, failed(message_id)) == set()
    assert submission_of(database, message_id) == before


def test_a_message_without_a_row_gets_one_with_its_outcome(database: Engine) -> None:
    # The ad does not exist either: a verdict outlives its ad.
    assert write(database, failed("sent by hand")) == {"sent by hand"}
    assert write(database, completed("sent by hand")) == set()
    found = submission_of(database, "sent by hand")
    assert found is not None
    assert (found.status, found.error_message) == ("failed", "no such ad")


def test_an_outcome_of_an_earlier_generation_changes_nothing(database: Engine) -> None:
    load_sample_ads(database)
    [message_id] = submit(database)
    write(database, failed(message_id))
    redrive(database, message_id)
    assert write(database, failed(message_id, generation=0)) == set()
    assert write(database, completed(message_id, generation=1)) == {message_id}


def test_an_outcome_of_a_redrive_that_the_row_knows_nothing_of_counts(database: Engine) -> None:
    # As when the dead letter itself is put back on the queue.
    load_sample_ads(database)
    [message_id] = submit(database)
    write(database, failed(message_id))
    assert write(database, completed(message_id, generation=1)) == {message_id}
    assert write(database, failed(message_id, generation=1)) == set()
    found = submission_of(database, message_id)
    assert found is not None
    assert (found.status, found.generation, found.error_message) == ("completed", 1, None)


def test_a_batch_writes_what_it_may_and_leaves_the_rest(database: Engine) -> None:
    load_sample_ads(database)
    done, waiting, failing = submit(database, [1, 2, 3])
    write(database, completed(done))
    written = write(database, failed(done), completed("new"), failed(failing), completed(waiting))
    assert written == {"new", failing, waiting}


def test_a_message_named_twice_in_one_batch_is_refused_before_anything_is_written(database: Engine) -> None:
    with pytest.raises(DatabaseRefused):
        write(database, completed("twice"), completed("twice"))
    assert submission_of(database, "twice") is None


def test_two_deliveries_at_the_same_moment_write_one_outcome(database: Engine) -> None:
    load_sample_ads(database)
    written: list[set[str]] = []

    def deliver_again(message_id: str) -> None:
        written.append(write(database, failed(message_id)))

    for message_id in [*submit(database), "without a row"]:
        written.clear()
        with transaction(database) as first:
            assert submissions.write_outcomes(first, [completed(message_id)]) == {message_id}
            second = threading.Thread(target=deliver_again, args=(message_id,))
            second.start()
            wait_until(
                lambda: execute(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
                deadline_s=60,
                what="the second delivery to meet the first one's lock",
            )
        second.join(60)
        assert written == [set()]
        found = submission_of(database, message_id)
        assert found is not None
        assert found.status == "completed"


def test_outcomes_of_pending_rows_use_up_no_ids(database: Engine) -> None:
    load_sample_ads(database)
    message_ids = submit(database, [1, 2, 3])
    write(database, *map(completed, message_ids))
    [later] = submit(database)
    found = submission_of(database, later)
    assert found is not None
    assert found.task_id == 4


@pytest.mark.parametrize(
    "error", ["a\x00b", "lone \udcff surrogate", "я" * 10_000, "'; DROP TABLE users; --"]
)
def test_any_error_text_can_be_written(database: Engine, error: str) -> None:
    write(database, failed("hard to write", error=error))
    found = submission_of(database, "hard to write")
    assert found is not None
    assert found.error_message is not None
    assert 0 < len(found.error_message) <= MAX_ERROR_CHARACTERS


def test_a_message_id_that_postgresql_cannot_hold_is_found_again(database: Engine) -> None:
    write(database, completed("a\x00b\udcff"))
    assert submission_of(database, "a\x00b\udcff") is not None


def test_results_are_read_by_task_id_without_those_that_do_not_exist(database: Engine) -> None:
    load_sample_ads(database)
    submit(database, [1, 2, 3])
    with transaction(database) as connection:
        found = submissions.read_by_task_ids(connection, [3, 1, 99, 1])
    assert sorted(found) == [1, 3]
    assert found[3].item_id == 3


@pytest.mark.parametrize("value", [0, -1, MAX_ID + 1, True, 1.0, "1", None])
def test_what_the_database_cannot_hold_as_an_id_is_none(value: object) -> None:
    assert not submissions.is_id(value)


def test_the_whole_range_of_integers_are_ids() -> None:
    assert submissions.is_id(1)
    assert submissions.is_id(MAX_ID)


generations = st.integers(0, 3)
events = st.lists(
    st.one_of(
        st.builds(lambda generation: completed("m", generation=generation), generations),
        st.builds(lambda generation: failed("m", generation=generation), generations),
        st.just("redrive"),
    ),
    max_size=12,
)


@given(events)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_delivered_in_whatever_order_each_generation_has_one_outcome(
    database: Engine, events: list[Outcome | str]
) -> None:
    execute(database, "TRUNCATE moderation_results CASCADE")
    load_sample_ads(database, 1)
    with transaction(database) as connection:
        submissions.insert_pending(connection, [NewSubmission("m", 1)], lease_s=30)
    generation, outcome = 0, None
    for event in events:
        if isinstance(event, Outcome):
            expected = event.generation > generation or (event.generation == generation and outcome is None)
            assert write(database, event) == ({"m"} if expected else set())
            if expected:
                generation, outcome = event.generation, event
        else:
            redrive(database, "m")
            generation, outcome = generation + 1, None
    found = submission_of(database, "m")
    assert found is not None
    expected_outcome = outcome or replace(completed("m"), is_violation=None, probability=None)
    assert (found.is_violation, found.probability) == (
        expected_outcome.is_violation,
        expected_outcome.probability,
    )
    ended = "failed" if outcome and outcome.error_message else "completed"
    assert found.status == (ended if outcome else "pending")

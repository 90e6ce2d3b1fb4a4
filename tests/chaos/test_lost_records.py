"""Commits that cannot be believed, and records that are gone."""

from collections.abc import Callable

import pytest
from kafka.structs import TopicPartition

from tests.chaos.arena import Arena


@pytest.mark.parametrize(
    "metadata",
    ["somebody@host", "dk1.deadbeef.AAAA", "dk2.00000000.AAAA"],
    ids=["foreign", "corrupt", "newer"],
)
def test_metadata_that_cannot_be_read_means_a_replay_with_one_warning(
    arena: Callable[..., Arena], metadata: str
) -> None:
    play = arena(partitions=1)
    play.send("work", range(50))
    worker = play.start_worker()
    play.wait_until_left(0)
    worker.stop(timeout_s=30)

    play.commit(0, 20, metadata)
    worker = play.start_worker()

    play.wait_until_done(play.send("work", range(50, 60)))
    entries = play.balance(f"metadata {metadata!r}", repeats_at_most=30)
    assert entries.repeats == 30, "what is above the committed offset runs again, and nothing else"
    assert len(worker.log_lines("replaying from offset 20")) == 1


def test_what_retention_removed_before_it_ran_is_counted_in_an_error(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=1)
    play.send("work", range(10))
    worker = play.start_worker()
    play.wait_until_left(0)
    worker.stop(timeout_s=30)
    removed = play.send("work", range(10, 40))
    kept = play.send("work", range(40, 60))
    with play.admin() as admin:
        admin.delete_records({TopicPartition(play.topic(), 0): 40})

    worker = play.start_worker()
    play.wait_until_done(kept)

    (line,) = worker.log_lines("removed from the log before they were run")
    assert "[ERROR]" in line
    assert f"{len(removed)} record(s)" in line
    play.sent -= removed
    play.balance("retention overtook 30 records", repeats_at_most=0)


def test_a_commit_beyond_the_end_of_a_topic_made_anew_skips_nothing(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=1)
    play.send("work", range(20))
    play.commit(0, 500, "")

    worker = play.start_worker()
    play.wait_until_done(range(20))

    (line,) = worker.log_lines("was recreated or has lost its tail")
    assert "[ERROR]" in line
    assert "480 record(s) are gone" in line
    play.balance("recreated topic", repeats_at_most=0)

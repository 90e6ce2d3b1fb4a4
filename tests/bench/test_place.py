"""What the bench tells its workers and senders arrives."""

from __future__ import annotations

from bench.place import Place
from bench.steady import course_of
from bench.systems import BY_KEY, OURS


def test_a_place_survives_its_way_through_an_environment() -> None:
    place = Place("127.0.0.1:1", "q7", partitions=16, preload=3, window_s=9, task="sleep", args="[1.5]")
    assert Place.from_env(place.env()) == place


def test_what_a_client_can_read_ahead_is_neither_timed_nor_missing() -> None:
    course = course_of(OURS, 1_000)
    assert course.before >= OURS.read_ahead
    assert course.after >= OURS.read_ahead
    assert course_of(BY_KEY["dramatiq-redis"], 1_000).counted == course.counted

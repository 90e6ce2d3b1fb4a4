"""What kafka-python may say while Kafka is away."""

import logging

from kafka.errors import Cancelled

from broker.kafka.log_filter import INTERVAL_S, LINES, RateLimitFilter


def record(line: int, level: int = logging.ERROR, attempt: int = 0) -> logging.LogRecord:
    return logging.LogRecord("kafka.net", level, "manager.py", line, "attempt %d failed", (attempt,), None)


def test_each_place_says_its_first_lines_and_then_rests_for_a_while() -> None:
    now_s = 0.0
    log_filter = RateLimitFilter(lambda: now_s)
    said = [attempt for attempt in range(100) if log_filter.filter(record(1, attempt=attempt))]
    assert said == list(range(LINES))
    assert log_filter.filter(record(2)), "another place has something else to say"
    now_s = INTERVAL_S
    assert log_filter.filter(record(1))


def test_a_request_of_a_client_that_was_closed_is_no_error() -> None:
    cancelled = logging.LogRecord(
        "kafka.cluster", logging.ERROR, "cluster.py", 1, "Metadata refresh: failed %s", (Cancelled(),), None
    )
    assert not RateLimitFilter(lambda: 0.0).filter(cancelled)


def test_the_last_line_before_the_rest_says_so() -> None:
    log_filter = RateLimitFilter(lambda: 0.0)
    records = [record(1, attempt=attempt) for attempt in range(LINES)]
    assert all(map(log_filter.filter, records))
    assert [each.getMessage() for each in records[:-1]] == [f"attempt {n} failed" for n in range(LINES - 1)]
    assert records[-1].getMessage().startswith(f"attempt {LINES - 1} failed (more of this")


def test_what_was_asked_for_with_a_lower_level_is_not_left_out() -> None:
    log_filter = RateLimitFilter(lambda: 0.0)
    assert all(log_filter.filter(record(1, level=logging.DEBUG)) for _ in range(100))

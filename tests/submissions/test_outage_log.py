"""The log of a server's outages."""

import logging
import time

import pytest

from submissions.outage_log import OutageLog


def test_going_away_and_coming_back_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = OutageLog("PostgreSQL", logging.getLogger("test"))
    server.came_back()
    for reason in ("refused", "refused", "timeout"):
        server.went_away(reason)
        assert server.is_away
    for _ in range(3):
        server.came_back()
        assert not server.is_away
    assert caplog.messages == [
        "PostgreSQL cannot be used: refused",
        "PostgreSQL can be used again, after 0 s",
    ]


def test_an_error_of_a_question_from_before_it_came_back_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = OutageLog("PostgreSQL", logging.getLogger("test"))
    asked_at_s = time.monotonic()
    server.went_away("refused", asked_at_s=asked_at_s)
    server.came_back()
    server.went_away("timeout", asked_at_s=asked_at_s)
    assert not server.is_away
    assert len(caplog.messages) == 2
    server.went_away("refused", asked_at_s=time.monotonic())
    assert server.is_away

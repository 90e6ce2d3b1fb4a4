"""The trace of a request in the message of its submission."""

from __future__ import annotations

import pytest
from dramatiq.message import Message

from broker.telemetry import OpenTelemetry
from db.outbox import Unpublished
from settings import Settings
from submissions.broker_factory import make_broker
from submissions.message import message_of

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def headers_of(message: Message[object]) -> list[tuple[str, bytes]]:
    broker = make_broker(Settings(_env_file=None))  # type: ignore[call-arg]
    return list(broker.parts.outgoing.record(message, None).headers)


def test_a_message_carries_the_trace_of_its_request_in_the_headers_of_its_record() -> None:
    traced = message_of(Unpublished("m-1", 0, 7, TRACEPARENT))
    assert headers_of(traced) == [("traceparent", TRACEPARENT.encode())]
    assert headers_of(message_of(Unpublished("m-1", 0, 7))) == []
    assert TRACEPARENT.encode() not in traced.encode()


@pytest.mark.parametrize("tracing", [True, False])
def test_messages_are_traced_where_the_settings_say_so(tracing: bool) -> None:
    broker = make_broker(Settings(_env_file=None, tracing=tracing))  # type: ignore[call-arg]
    assert isinstance(broker.middleware[0], OpenTelemetry) is tracing
    assert len(broker.middleware) > 5

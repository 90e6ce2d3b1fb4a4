"""One trace follows a message from the request that sends it to the last statement that its task executes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode

from broker import EnqueueFailed, KafkaBroker, default_middleware
from broker.telemetry import OpenTelemetry, conventions
from broker.testing import Kit, advance, drain
from broker.testing.kit import current


class DatabaseAway(Exception):
    """The database does not answer."""


class Traced:
    """A broker with the middleware, and what it has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader])
        middleware = [OpenTelemetry(self.provider, meters), *default_middleware()]
        self.broker = KafkaBroker(namespace="shop-", partitions=2, middleware=middleware)
        self.tracer = self.provider.get_tracer("the application")

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def points(self, name: str) -> list[Any]:
        found = self._reader.get_metrics_data()
        assert found is not None
        return [
            point
            for resource in found.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    with Kit(traced.broker).use():
        yield traced


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_one_trace_goes_through_retry_delay_lane_dead_letter_and_redrive(traced: Traced) -> None:
    fails = [True]

    @dramatiq.actor(broker=traced.broker, queue_name="mail", max_retries=1, min_backoff=60_000)
    def send_mail(order: int) -> None:
        with traced.tracer.start_as_current_span("SELECT orders"):
            if fails[0]:
                raise DatabaseAway(f"order {order}")
        send_receipt.send(order)

    @dramatiq.actor(broker=traced.broker, queue_name="receipts")
    def send_receipt(order: int) -> None: ...

    with traced.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER) as request:
        send_mail.send_with_options(args=(7,), delay=30_000, partition_key="customer-1")
    advance(minutes=1)
    drain(raise_errors=False)
    advance(minutes=5)
    drain(raise_errors=False)
    assert len(list(traced.broker.dead_letters("mail"))) == 1
    fails[0] = False
    traced.broker.redrive("mail", dry_run=False, reason="a test")
    drain()

    (sent,) = traced.spans("send shop-mail")
    runs = traced.spans("process shop-mail")
    assert len(runs) == 3
    assert [run.attributes[conventions.ATTEMPT] for run in runs if run.attributes] == [1, 2, 1]
    # The request, the send, each attempt, their statements, and the message that the last one sends.
    assert {trace_id(span) for span in traced.spans()} == {request.get_span_context().trace_id}
    assert sent.parent is not None
    assert sent.parent.span_id == request.get_span_context().span_id
    for run in runs:
        assert run.parent is not None
        assert run.parent.span_id == span_id(sent)
        assert run.parent.is_remote
    statements = traced.spans("SELECT orders")
    assert [s.parent and s.parent.span_id for s in statements] == [span_id(run) for run in runs]
    (receipt,) = traced.spans("send shop-receipts")
    assert receipt.parent is not None
    assert receipt.parent.span_id == span_id(runs[2])
    (received,) = traced.spans("process shop-receipts")
    assert received.parent is not None
    assert received.parent.span_id == span_id(receipt)


def test_spans_have_the_attributes_of_the_conventions(traced: Traced) -> None:
    @dramatiq.actor(broker=traced.broker, queue_name="mail", max_retries=0)
    def send_mail() -> None:
        raise DatabaseAway

    message = send_mail.send()
    drain(raise_errors=False)
    (sent,) = traced.spans("send ")
    assert sent.kind is SpanKind.PRODUCER
    assert dict(sent.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "shop-mail",
        "messaging.message.id": message.message_id,
        "dramatiq.actor.name": "send_mail",
    }
    (run,) = traced.spans("process ")
    assert (run.name, run.kind, run.status.status_code) == (
        "process shop-mail", SpanKind.CONSUMER, StatusCode.ERROR,
    )  # fmt: skip
    attributes = dict(run.attributes or {})
    assert attributes.pop("messaging.destination.partition.id") in ("0", "1")
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "shop-mail",
        "messaging.consumer.group.name": "dramatiq.shop-mail",
        "messaging.kafka.offset": 0,
        "messaging.message.id": message.message_id,
        "dramatiq.actor.name": "send_mail",
        "dramatiq.attempt": 1,
        "error.type": f"{__name__}.DatabaseAway",
    }
    (settled,) = traced.spans("nack ")
    assert (settled.name, settled.kind) == ("nack shop-mail", SpanKind.CLIENT)
    assert (settled.attributes or {})["messaging.operation.type"] == "settle"
    assert settled.parent is not None
    assert settled.parent.span_id == span_id(run)


def test_the_names_are_those_of_the_conventions_package() -> None:
    theirs = {
        value for module in (messaging_attributes, error_attributes) for value in vars(module).values()
        if isinstance(value, str)
    }  # fmt: skip
    ours = {
        value
        for name, value in vars(conventions).items()
        if name.isupper() and isinstance(value, str) and value.startswith(("messaging.", "error."))
        if not value.startswith(("messaging.client.", "messaging.process."))
    }
    assert ours <= theirs
    types = {one.value for one in messaging_attributes.MessagingOperationTypeValues}
    assert {conventions.SEND, conventions.PROCESS, conventions.SETTLE} <= types


def test_metrics_have_the_names_of_the_conventions_and_no_id(traced: Traced) -> None:
    @dramatiq.actor(broker=traced.broker, queue_name="mail")
    def send_mail() -> None: ...

    for _ in range(3):
        send_mail.send()
    drain()
    assert sum(point.value for point in traced.points("messaging.client.sent.messages")) == 3
    assert sum(point.value for point in traced.points("messaging.client.consumed.messages")) == 3
    assert sum(point.count for point in traced.points("messaging.process.duration")) == 3
    durations = traced.points("messaging.client.operation.duration")
    counts = {point.attributes["messaging.operation.name"]: point.count for point in durations}
    assert counts == {"send": 3, "ack": 3}
    assert {tuple(point.explicit_bounds) for point in durations} == {conventions.DURATION_BOUNDS_S}
    assert not any("messaging.message.id" in point.attributes for point in durations)


def test_a_message_that_kafka_does_not_take_ends_its_span_with_the_error(traced: Traced) -> None:
    @dramatiq.actor(broker=traced.broker, queue_name="mail")
    def send_mail() -> None: ...

    with current().kafka_away(), pytest.raises(EnqueueFailed):
        send_mail.send()
    (sent,) = traced.spans("send ")
    assert sent.status.status_code is StatusCode.ERROR
    assert "error.type" in (sent.attributes or {})


def test_a_message_without_a_context_begins_a_trace_of_its_own(traced: Traced) -> None:
    @dramatiq.actor(broker=traced.broker, queue_name="mail")
    def send_mail() -> None: ...

    with traced.tracer.start_as_current_span("the worker's own"):
        message = send_mail.message()
        traced.broker.parts.publisher.publish([traced.broker.parts.outgoing.record(message, None)])
        drain()
    (run,) = traced.spans("process ")
    assert run.parent is None
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_message_that_an_outbox_sends_later_continues_the_trace_of_its_request(traced: Traced) -> None:
    @dramatiq.actor(broker=traced.broker, queue_name="mail")
    def send_mail() -> None: ...

    message = send_mail.message()
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    vars(message)["headers"] = [("tenant", b"7"), ("traceparent", traceparent)]
    traced.broker.enqueue(message)
    drain()
    (sent,) = traced.spans("send ")
    assert sent.parent is not None
    assert sent.parent.span_id == 0xB7AD6B7169203331
    (run,) = traced.spans("process ")
    assert trace_id(run) == trace_id(sent) == 0x0AF7651916CD43DD8448EB211C80319C
    records = [r for log in current().cluster.topics["shop-mail"].logs for r in log.records]
    (headers,) = [dict(record.headers) for record in records]
    assert headers["tenant"] == b"7"
    assert headers["traceparent"].endswith(b"-%016x-01" % span_id(sent))

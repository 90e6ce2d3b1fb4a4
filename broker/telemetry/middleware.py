"""The middleware that traces messages and measures them.

A new message gets a span ``send``, whose context travels in the headers of its record (``traceparent``). The
broker keeps the headers of a record in all records that follow from it as the same message: retry, delay,
lane, dead letter, redrive. So each attempt is a child of the one ``send``, in one trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from ..process import clock
from ..version import VERSION
from . import conventions as names

if TYPE_CHECKING:
    from .. import KafkaBroker

_SCOPE = "dramatiq_kafka_broker"
#: Where the state of a message is kept: in its own attributes, which are not encoded.
_SENDING = "_telemetry_sending"
_RUN = "_telemetry_run"

Attributes = dict[str, str | int]


@dataclass(slots=True)
class _Operation:
    """An operation that has begun."""

    span: Span
    began_s: float
    measured: Attributes


@dataclass(slots=True)
class _Run(_Operation):
    """The run of a message, or its end.

    Attributes:
      token: Resets the current context; None when the run has ended.
      settling: The settling after the run.
    """

    token: Any = None
    settling: _Operation | None = None


class OpenTelemetry(Middleware):
    """Traces and measures messages by the semantic conventions for messaging.

    Put it first, so that what other middleware does belongs to the run of its message::

        KafkaBroker(middleware=[OpenTelemetry(), *default_middleware()])

    Spans: ``send {topic}`` (PRODUCER), ``process {topic}`` (CONSUMER) for each run, with the error, and
    ``ack {topic}`` or ``nack {topic}`` (CLIENT, of the type ``settle``). There is no span ``receive``: the
    conventions have it for applications that pull messages, and here the framework calls the actor.

    Parameters:
      tracer_provider, meter_provider: Those of the application; by default the global ones.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, VERSION, tracer_provider, names.SCHEMA_URL)
        meter = metrics.get_meter(_SCOPE, VERSION, meter_provider, names.SCHEMA_URL)
        bounds = list(names.DURATION_BOUNDS_S)
        self._operation_duration = meter.create_histogram(
            names.OPERATION_DURATION, "s", explicit_bucket_boundaries_advisory=bounds
        )
        self._process_duration = meter.create_histogram(
            names.PROCESS_DURATION, "s", explicit_bucket_boundaries_advisory=bounds
        )
        self._sent = meter.create_counter(names.SENT_MESSAGES, "{message}")
        self._consumed = meter.create_counter(names.CONSUMED_MESSAGES, "{message}")

    # Sending

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        if isinstance(message, MessageProxy):
            return  # a retry keeps the headers of its record
        topic = _kafka(broker).parts.topics.queue(message.queue_name)
        measured = _measured(names.SEND, names.SEND, topic)
        attributes = {**measured, names.MESSAGE_ID: message.message_id, names.ACTOR_NAME: message.actor_name}
        if delay:
            attributes[names.DELAY_MS] = delay
        state = vars(message)  # a message is frozen against assignment
        given: list[tuple[str, bytes]] = list(state.get("headers", ()))
        parent = None
        if given and not trace.get_current_span().get_span_context().is_valid:
            parent = _context_of(given)  # a thread that sends what requests have left for it
        span = self._tracer.start_span(f"send {topic}", parent, kind=SpanKind.PRODUCER, attributes=attributes)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        state["headers"] = [header for header in given if header[0] not in carrier]
        state["headers"] += [(name, value.encode()) for name, value in carrier.items()]
        state[_SENDING] = _Operation(span, clock.monotonic_s(), measured)

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        self._end_send(message, None)

    def after_enqueue_failure(self, broker: Broker, message: Message[Any], error: BaseException) -> None:
        """Called by the broker when Kafka did not take a message."""
        self._end_send(message, error)

    def _end_send(self, message: Message[Any], error: BaseException | None) -> None:
        sending: _Operation | None = vars(message).pop(_SENDING, None)
        if sending is not None:
            self._end(sending, error)
            self._sent.add(1, _with_error(sending.measured, error))

    # Running

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        topic, partition, offset = getattr(message, "origin", (message.queue_name, None, None))
        parent = _context_of(getattr(message, "headers", ()))
        group = _kafka(broker).parts.group_of(message.queue_name)
        measured = _measured(names.PROCESS, names.PROCESS, topic) | {names.CONSUMER_GROUP_NAME: group}
        attributes = measured | {
            names.MESSAGE_ID: message.message_id,
            names.ACTOR_NAME: message.actor_name,
            names.ATTEMPT: getattr(message, "attempt", 1),
        }
        if partition is not None:
            measured[names.DESTINATION_PARTITION_ID] = str(partition)
            attributes |= {names.DESTINATION_PARTITION_ID: str(partition), names.KAFKA_OFFSET: offset}
        if (key := _key_of(message)) is not None:
            attributes[names.KAFKA_MESSAGE_KEY] = key
        span = self._tracer.start_span(
            f"process {topic}", parent, kind=SpanKind.CONSUMER, attributes=attributes
        )
        token = context.attach(trace.set_span_in_context(span, parent))
        vars(message)[_RUN] = _Run(span, clock.monotonic_s(), measured, token)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        run: _Run | None = vars(message).get(_RUN)
        if run is None or run.token is None:
            return
        context.detach(run.token)
        run.token = None
        duration_s = clock.monotonic_s() - run.began_s
        _note_error(run.span, exception)
        run.span.end()
        measured = _with_error(run.measured, exception)
        self._process_duration.record(duration_s, measured)
        self._consumed.add(1, measured)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)

    # Settling

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        self._begin_settling(message, "ack")

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        self._end_settling(message)

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._begin_settling(message, "nack")

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._end_settling(message)

    def _begin_settling(self, message: MessageProxy, name: str) -> None:
        run: _Run | None = vars(message).get(_RUN)
        if run is None:
            return
        topic = str(run.measured[names.DESTINATION_NAME])
        group = run.measured[names.CONSUMER_GROUP_NAME]
        measured = _measured(name, names.SETTLE, topic) | {names.CONSUMER_GROUP_NAME: group}
        span = self._tracer.start_span(
            f"{name} {topic}",
            trace.set_span_in_context(run.span),
            kind=SpanKind.CLIENT,
            attributes=measured | {names.MESSAGE_ID: message.message_id},
        )
        run.settling = _Operation(span, clock.monotonic_s(), measured)

    def _end_settling(self, message: MessageProxy) -> None:
        run: _Run | None = vars(message).get(_RUN)
        if run is not None and run.settling is not None:
            self._end(run.settling, None)
            run.settling = None

    def _end(self, operation: _Operation, error: BaseException | None) -> None:
        _note_error(operation.span, error)
        operation.span.end()
        duration_s = clock.monotonic_s() - operation.began_s
        self._operation_duration.record(duration_s, _with_error(operation.measured, error))


def _kafka(broker: Broker) -> KafkaBroker:
    from .. import KafkaBroker

    assert isinstance(broker, KafkaBroker)
    return broker


def _measured(name: str, kind: str, topic: str) -> Attributes:
    """The attributes that a span and the metrics of an operation have in common; none is an id."""
    return {
        names.SYSTEM: names.KAFKA,
        names.OPERATION_NAME: name,
        names.OPERATION_TYPE: kind,
        names.DESTINATION_NAME: topic,
    }


def _context_of(headers: Any) -> Context:
    """The context in the headers of a record; an empty one without it, never that of this thread."""
    carrier = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    return propagate.extract(carrier, Context())


def _key_of(message: MessageProxy) -> str | None:
    """The record's key, when it is text."""
    record = getattr(message, "record", None)
    try:
        return None if record is None or record.key is None else record.key.decode()
    except UnicodeDecodeError:
        return None


def _error_type(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _with_error(measured: Attributes, error: BaseException | None) -> Mapping[str, str | int]:
    return measured if error is None else {**measured, names.ERROR_TYPE: _error_type(error)}


def _note_error(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.record_exception(error)
        span.set_attribute(names.ERROR_TYPE, _error_type(error))
        span.set_status(StatusCode.ERROR, type(error).__name__)

"""The middleware that observes this broker's tasks, by the name of a row's contestant."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dramatiq.middleware import Middleware


def observers(name: str) -> list[Middleware]:
    """The middleware to put first: ``traces``, ``recorded``, ``logs``, or none."""
    if name in ("traces", "recorded"):
        from broker.telemetry import OpenTelemetry

        if name == "traces":
            return [OpenTelemetry()]
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Nowhere()))
        return [OpenTelemetry(provider)]
    if name == "logs":
        from broker.logs import JSONFormatter, TaskLogs

        class Formatted(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                self.format(record)

        handler = Formatted()
        handler.setFormatter(JSONFormatter())
        lines = logging.getLogger("broker.logs")
        lines.addHandler(handler)
        lines.setLevel(logging.INFO)
        lines.propagate = False
        return [TaskLogs(formats=False)]
    return []

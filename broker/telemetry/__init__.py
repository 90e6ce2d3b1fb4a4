"""Traces and metrics for OpenTelemetry: the middleware ``OpenTelemetry``. It needs the extra ``otel``.

Nothing of the broker imports this room, so it costs nothing until an application adds the middleware.
"""

from .middleware import OpenTelemetry

__all__ = ["OpenTelemetry"]

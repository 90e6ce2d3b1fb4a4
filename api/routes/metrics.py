"""The metrics of the API in Prometheus' format, and what measures its requests."""

import asyncio
import time

from prometheus_client import CONTENT_TYPE_LATEST
from sanic import HTTPResponse, Sanic

from api.http.request import AnyRequest
from api.routes.operation import calls_of
from api.services.async_batcher import TooManyWaiting
from api.services.metrics import ApiMetrics
from db.errors import DatabaseError
from db.statistics import Statistics, read_statistics
from submissions.application import Application

PATH = "/metrics"
#: Scrapes within this time get the same statistics of the database.
STATISTICS_FOR_S = 5.0
#: A scrape waits no longer for PostgreSQL: Prometheus gives up after 10 s.
DATABASE_TIMEOUT_S = 5.0


def add_metrics(app: Sanic, metrics: ApiMetrics) -> None:
    """Serve the metrics. The class of requests counts the answered ones."""
    statistics = _RecentStatistics()

    async def serve(request: AnyRequest) -> HTTPResponse:
        await request.authorize()
        found = await statistics.read(request)
        text = await asyncio.to_thread(metrics.text, found)
        return HTTPResponse(text, content_type=CONTENT_TYPE_LATEST)

    # The figures are those of all clients.
    app.add_route(serve, PATH, methods=["GET", "HEAD"], name="metrics", ctx_scope="review")


class _RecentStatistics:
    """The statistics of the database, read again when they are old. For one event loop."""

    def __init__(self) -> None:
        self._found: Statistics | None = None
        self._read_at_s = float("-inf")

    async def read(self, request: AnyRequest) -> Statistics | None:
        """Return the statistics; None when PostgreSQL does not answer."""
        if time.monotonic() - self._read_at_s > STATISTICS_FOR_S:
            try:
                async with asyncio.timeout(DATABASE_TIMEOUT_S):
                    self._found = await calls_of(request).call(_read)
            except (DatabaseError, TooManyWaiting, TimeoutError):
                self._found = None  # the database logs outages
            self._read_at_s = time.monotonic()
        return self._found


def _read(application: Application) -> Statistics:
    with application.database.statements() as connection:
        return read_statistics(connection)

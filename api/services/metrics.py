"""The Prometheus metrics of an API process."""

import os
from collections.abc import Iterator, Sequence
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from db.items import AdFields
from db.statistics import Statistics
from submissions.predicting import CannotScore, ModelUnavailable, Predictor, Verdict

#: The variable by which ``prometheus_client`` shares the values of several API processes.
SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
#: Buckets in seconds: of requests and statements, and of scoring.
_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHARES = tuple(number / 20 for number in range(1, 21))

#: Made by hand in the value of ``route``: a path that no route has.
NO_ROUTE = "(none)"
#: The metrics of the database, with their meanings.
DATABASE_METRICS = {
    "moderation_database_up": "Whether PostgreSQL has answered.",
    "moderation_outbox_messages": (
        "Submissions whose messages Kafka does not have; 10,000 stands for as many or more."
    ),
    "moderation_outbox_age_seconds": "The age of the oldest submission whose message Kafka does not have.",
    "moderation_pending_age_seconds": "The age of the oldest pending submission.",
    "moderation_latest_submissions": "The latest 1,000 submissions by status and decision.",
    "moderation_latest_mean_probability": (
        "The mean probability of a violation in the verdicts among the latest 1,000 submissions."
    ),
}
_NO_VERDICT = [(status, "") for status in ("pending", "failed", "cancelled")]


class ApiMetrics:
    """What an API process counts. In one process a registry has it; several share a directory.

    No label has an id: their values are routes, statuses, kinds of statements and decisions.

    Attributes:
      registry: That of the metrics of this process.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        # The look-up of a series by its labels takes longer than its increase.
        self._series_of_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "http_requests_total", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self.durations = Histogram(
            "http_request_duration_seconds",
            "From a request's head to its response.",
            ["route"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        self.predictions = Counter(
            "predictions_total", "Verdicts that this API has computed.", ["is_violation"], registry=registry
        )
        self.prediction_errors = Counter(
            "prediction_errors_total",
            "Ads that this API could not score.",
            ["reason"],
            registry=registry,
        )
        for reason in ("no_model", "cannot_score"):
            self.prediction_errors.labels(reason)  # its first increase is seen only from 0
        self.prediction_duration = Histogram(
            "prediction_duration_seconds",
            "The time to score a batch of ads.",
            buckets=_REQUEST_S,
            registry=registry,
        )
        self.probability = Histogram(
            "model_prediction_probability",
            "The probability of a violation in the verdicts of this API.",
            buckets=_SHARES,
            registry=registry,
        )
        self.query_duration = Histogram(
            "db_query_duration_seconds",
            "Statements of PostgreSQL, by what they do first.",
            ["operation"],
            buckets=_REQUEST_S,
            registry=registry,
        )
        if SHARED_DIRECTORY not in os.environ:
            ProcessCollector(registry=registry)

    def observe_statement(self, kind: str, duration_s: float) -> None:
        """Note a statement; see ``db.timing``."""
        self.query_duration.labels(kind).observe(duration_s)

    def observe_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Note an answered request."""
        series = self._series_of_request.get((method, route, status))
        if series is None:
            series = self.requests.labels(method, route, str(status)), self.durations.labels(route)
            self._series_of_request[method, route, status] = series
        answered, durations = series
        answered.inc()
        durations.observe(duration_s)

    def text(self, statistics: Statistics | None) -> bytes:
        """Return the metrics of all API processes in Prometheus' text format.

        Parameters:
          statistics: Those of the database; None when PostgreSQL does not answer.
        """
        registry = self.registry
        if SHARED_DIRECTORY in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        of_database = CollectorRegistry()
        of_database.register(_DatabaseCollector(statistics))
        return generate_latest(registry) + generate_latest(of_database)


class _DatabaseCollector(Collector):
    """The metrics of the database, which are the same in every API process."""

    def __init__(self, statistics: Statistics | None) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        found = self._statistics
        yield _gauge("moderation_database_up", found is not None)
        if found is None:
            return
        yield _gauge("moderation_outbox_messages", found.unpublished)
        yield _gauge("moderation_outbox_age_seconds", found.oldest_unpublished_s)
        yield _gauge("moderation_pending_age_seconds", found.oldest_pending_s)
        name = "moderation_latest_submissions"
        latest = GaugeMetricFamily(name, DATABASE_METRICS[name], labels=["status", "decision"])
        for (status, decision), number in (dict.fromkeys(_NO_VERDICT, 0) | dict(found.latest)).items():
            latest.add_metric([status, decision], number)
        yield latest
        if found.mean_probability is not None:
            yield _gauge("moderation_latest_mean_probability", found.mean_probability)


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, DATABASE_METRICS[name], value=float(value))


class MeasuredPredictor(Predictor):
    """A predictor whose verdicts, errors and durations are counted."""

    def __init__(self, predictor: Predictor, metrics: ApiMetrics) -> None:
        self._predictor = predictor
        self._metrics = metrics

    def predict(self, ads: Sequence[AdFields]) -> list[Verdict | CannotScore]:
        began_s = monotonic()
        try:
            verdicts = self._predictor.predict(ads)
        except ModelUnavailable:
            self._metrics.prediction_errors.labels("no_model").inc(len(ads))
            raise
        if ads:  # the model is loaded by a call without ads
            self._metrics.prediction_duration.observe(monotonic() - began_s)
        for verdict in verdicts:
            if isinstance(verdict, CannotScore):
                self._metrics.prediction_errors.labels("cannot_score").inc()
            else:
                self._metrics.predictions.labels(str(verdict.is_violation).lower()).inc()
                self._metrics.probability.observe(verdict.probability)
        return verdicts

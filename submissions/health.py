"""The servers and the model that a process needs, checked by asking them."""

import logging

from dramatiq.errors import BrokerConnectionError

from broker import KafkaBroker
from db.errors import DatabaseError
from submissions.database import Database
from submissions.outage_log import OutageLog
from submissions.predicting import Predictor

logger = logging.getLogger(__name__)

PING_TIMEOUT_S = 2.0

POSTGRESQL = "postgresql"
MIGRATIONS = "migrations"
KAFKA = "kafka"
MODEL = "model"

#: The reason for each missing dependency, by name; empty when nothing is missing. Anybody may read a reason:
#: it has no text of a server, no address and no path. The log has those.
Missing = dict[str, str]

_REASON = "it cannot be used; the log of the API says why"


class HealthChecks:
    """Checks one dependency at a time. Every method blocks until an answer or a timeout."""

    def __init__(self, database: Database, broker: KafkaBroker, predictor: Predictor) -> None:
        self._database = database
        self._broker = broker
        self._predictor = predictor
        self._kafka_outages = OutageLog("Kafka", logger)

    def database(self) -> Missing:
        """Check PostgreSQL and the migrations."""
        try:
            absent = self._database.missing_schema()
        except DatabaseError:  # Database logs outages
            return {POSTGRESQL: _REASON}
        return {MIGRATIONS: f"not there: {', '.join(absent)}; run make migrate"} if absent else {}

    def kafka(self) -> Missing:
        """Check Kafka, within :data:`PING_TIMEOUT_S`."""
        try:
            self._broker.ping(timeout_s=PING_TIMEOUT_S)
        except BrokerConnectionError as error:
            self._kafka_outages.went_away(error)
            return {KAFKA: _REASON}
        self._kafka_outages.came_back()
        return {}

    def model(self) -> Missing:
        """Check the model; the first call loads it."""
        return {MODEL: _REASON} if self._predictor.trouble() else {}  # the predictor logs it

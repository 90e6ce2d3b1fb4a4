"""The servers and the model that a process needs, checked by asking them."""

from dramatiq.errors import BrokerConnectionError

from broker import KafkaBroker
from db.errors import DatabaseError
from submissions.database import Database
from submissions.predicting import Predictor

PING_TIMEOUT_S = 2.0

POSTGRESQL = "postgresql"
MIGRATIONS = "migrations"
KAFKA = "kafka"
MODEL = "model"

#: The reason for each missing dependency, by name; empty when nothing is missing.
Missing = dict[str, str]


class HealthChecks:
    """Checks one dependency at a time. Every method blocks until an answer or a timeout."""

    def __init__(self, database: Database, broker: KafkaBroker, predictor: Predictor) -> None:
        self._database = database
        self._broker = broker
        self._predictor = predictor

    def database(self) -> Missing:
        """Check PostgreSQL and the migrations."""
        try:
            absent = self._database.missing_schema()
        except DatabaseError as error:
            return {POSTGRESQL: str(error)}
        return {MIGRATIONS: f"not there: {', '.join(absent)}; run make migrate"} if absent else {}

    def kafka(self) -> Missing:
        """Check Kafka, within :data:`PING_TIMEOUT_S`."""
        try:
            self._broker.ping(timeout_s=PING_TIMEOUT_S)
        except BrokerConnectionError as error:
            return {KAFKA: str(error)}
        return {}

    def model(self) -> Missing:
        """Check the model; the first call loads it."""
        trouble = self._predictor.trouble()
        return {MODEL: trouble} if trouble else {}

"""The application behind the API, put together from the settings."""

from settings import Settings
from submissions.ads import AdStore
from submissions.broker_factory import make_broker
from submissions.database import Database
from submissions.explaining import Explainer
from submissions.health import HealthChecks
from submissions.models import Models
from submissions.outbox import Outbox
from submissions.predicting import Predictor
from submissions.queries import SubmissionQueries
from submissions.resubmitting import Resubmitter
from submissions.submitting import Submitter

#: The wait for a lock: requests wait for the statements of others. Migrations lock a table for less.
LOCK_TIMEOUT_S = 0.8


class Application:
    """Everything that the API calls. A process makes one at start-up; making it connects to nothing.

    Parameters:
      settings: The settings of the process.

    Attributes:
      database: Transactions, and the connections of an event loop.
      submitter, queries, ads, predictor, explainer: The use cases. Their methods block.
      health: The checks of the dependencies.
    """

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings, lock_timeout_s=LOCK_TIMEOUT_S)
        self._broker = make_broker(settings)
        self._outbox = Outbox(
            self._broker,
            self.database.statements,
            lease_s=settings.publish_lease_s,
            interval_s=settings.relay_interval_s,
            resubmit=Resubmitter(self.database.statements, interval_s=settings.relay_interval_s).resubmit,
        )
        self.submitter = Submitter(self.database, self._outbox, key_ttl_s=settings.idempotency_key_ttl_s)
        self.queries = SubmissionQueries(self.database)
        self.ads = AdStore(self.database)
        self.predictor = Predictor(Models(settings))
        self.explainer = Explainer(self.database, self.predictor)
        self.health = HealthChecks(self.database, self._broker, self.predictor)

    def start(self) -> None:
        """Start the outbox. Without it, submissions are published by the call that accepts them."""
        self._outbox.start()

    def stop(self) -> None:
        """Publish the submissions that wait in memory, within a few seconds, and stop the outbox."""
        self._outbox.stop()

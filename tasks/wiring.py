"""The worker's objects, put together from the settings.

They exist at import, because Dramatiq binds an actor to the broker that is set when the actor is declared.
"""

import dramatiq
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results

from broker import default_middleware
from scoring import Verdict
from settings import get_settings
from submissions.broker_factory import make_broker
from submissions.database import Database
from submissions.models import Models
from submissions.outbox import Outbox
from submissions.resubmitting import Resubmitter
from tasks.database_gate import DatabaseGate
from tasks.failures import FailureRecorder
from tasks.moderator import Job, Moderator
from tasks.results import SubmissionResults
from tasks.thread_batcher import ThreadBatcher
from tasks.worker import WorkerLife

#: Ads in one SELECT, one predict_proba and one UPDATE: more than the usual number of a worker's threads.
MAX_BATCH = 128

_settings = get_settings()
_database = Database(_settings)
_models = Models(_settings)

broker = make_broker(
    _settings,
    middleware=[
        *default_middleware(on_dead_letter=FailureRecorder(_database).record),
        CurrentMessage(),
        Results(backend=SubmissionResults(_database)),
    ],
)
dramatiq.set_broker(broker)

_outbox = Outbox(
    broker,
    _database.statements,
    lease_s=_settings.publish_lease_s,
    interval_s=_settings.relay_interval_s,
    resubmit=Resubmitter(_database.statements, interval_s=_settings.relay_interval_s).resubmit,
)
_gate = DatabaseGate(broker, _database.ping)
moderator: ThreadBatcher[Job, Verdict] = ThreadBatcher(
    Moderator(_database.statements, _models.current, _gate, _models.shadow).moderate,
    name="moderator",
    max_items=MAX_BATCH,
)
broker.add_middleware(WorkerLife(_models, _outbox, _gate, moderator))

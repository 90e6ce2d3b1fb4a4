"""The broker with everything that hangs on it, put together from the settings."""

import logging

import dramatiq
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results

from broker import KafkaBroker, default_middleware
from scoring import Verdict
from settings import get_settings
from tasks.batching import Batcher
from tasks.failures import record_failure
from tasks.intake import Intake
from tasks.outbox import ENQUEUE_TIMEOUT_MS, Outbox
from tasks.resources import model, ping_database, statements
from tasks.results import SubmissionResults
from tasks.verdicts import Job, Moderator
from tasks.worker import WorkerLife

# kafka-python reports every connection and metadata refresh at INFO, ten lines for each of the product's own.
logging.getLogger("kafka").setLevel(logging.WARNING)

#: Ads in one SELECT, one predict_proba and one UPDATE: more than a worker has threads, as a rule.
MAX_BATCH = 128


def _make_broker() -> KafkaBroker:
    settings = get_settings()
    return KafkaBroker(
        settings.kafka_bootstrap_servers,
        group_id=settings.kafka_group_id,
        namespace=settings.kafka_namespace,
        partitions=settings.kafka_partitions,
        replication_factor=settings.kafka_replication,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        client_options=settings.kafka_client_options,
        enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS,
        middleware=[
            *default_middleware(on_dead_letter=record_failure),
            CurrentMessage(),
            Results(backend=SubmissionResults()),
        ],
    )


broker = _make_broker()
dramatiq.set_broker(broker)

outbox = Outbox(
    broker,
    statements,
    lease_s=get_settings().publish_lease_s,
    interval_s=get_settings().relay_interval_s,
)
intake = Intake(broker, ping_database)
moderator: Batcher[Job, Verdict] = Batcher(
    Moderator(statements, model, intake).moderate, name="moderator", max_items=MAX_BATCH
)
broker.add_middleware(WorkerLife(outbox, intake, moderator))

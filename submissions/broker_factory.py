"""The Dramatiq broker that the settings describe."""

import logging

from dramatiq.middleware import Middleware

from broker import KafkaBroker, default_middleware
from settings import Settings
from submissions.message import QUEUE
from submissions.outbox import ENQUEUE_TIMEOUT_MS


def make_broker(settings: Settings, *, middleware: list[Middleware] | None = None) -> KafkaBroker:
    """Make a broker with the queue of submissions declared. It connects when it is first used.

    Parameters:
      middleware: As :class:`KafkaBroker` takes it. Processes that only send need no middleware of their own.
    """
    # kafka-python logs every connection and metadata refresh at INFO: ten lines for each line of the product.
    logging.getLogger("kafka").setLevel(logging.WARNING)
    if settings.tracing:
        from broker.telemetry import OpenTelemetry  # it needs a package that nothing else does

        middleware = [OpenTelemetry(), *(default_middleware() if middleware is None else middleware)]
    broker = KafkaBroker(
        settings.kafka_bootstrap_servers,
        group_id=settings.kafka_group_id,
        namespace=settings.kafka_namespace,
        partitions=settings.kafka_partitions,
        replication_factor=settings.kafka_replication or None,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        client_options=settings.kafka_client_options,
        enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS,
        middleware=middleware,
    )
    broker.declare_queue(QUEUE)
    return broker

"""What must be there for tasks to run."""

from dramatiq.errors import BrokerConnectionError

from tasks.wiring import broker

PING_TIMEOUT_S = 2.0


def kafka_trouble() -> str | None:
    """Return why Kafka cannot be used, or None when it answers. Blocks for up to two seconds."""
    try:
        broker.ping(timeout_s=PING_TIMEOUT_S)
    except BrokerConnectionError as error:
        return str(error)
    return None

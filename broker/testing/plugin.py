"""The fixtures of the test kit, which pytest finds by the entry point of this distribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dramatiq import Worker
    from dramatiq.broker import Broker

    from ..broker import KafkaBroker


@pytest.fixture
def application_broker() -> Any:
    """The broker whose actors are tested: by default the one of ``dramatiq.set_broker``.

    Override this fixture where the application has another one.
    """
    import dramatiq.broker

    return dramatiq.broker.global_broker


@pytest.fixture
def kafka_broker(application_broker: Broker | None) -> Iterator[KafkaBroker]:
    """The application's broker with its Kafka in memory, empty and its own for each test.

    Where the application has no broker, or another kind, it is a broker of its own, with the application's
    actors, and the global one meanwhile.
    """
    import dramatiq

    from ..broker import KafkaBroker
    from .kit import Kit

    if isinstance(application_broker, KafkaBroker):
        with Kit(application_broker).use():
            yield application_broker
        return
    broker = KafkaBroker()
    actors = [] if application_broker is None else list(application_broker.actors.values())
    for actor in actors:
        actor.broker = broker
        broker.declare_actor(actor)
    global_broker = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)
    try:
        with Kit(broker).use():
            yield broker
    finally:
        vars(dramatiq.broker)["global_broker"] = global_broker
        for actor in actors:
            assert application_broker is not None
            actor.broker = application_broker


@pytest.fixture
def worker(kafka_broker: KafkaBroker) -> Iterator[Worker]:
    """A worker with threads on ``kafka_broker``, for what one thread cannot show. Real time passes as well:
    wait with ``kafka_broker.join(queue_name)``.
    """
    from .kit import current

    with current().threads() as worker:
        yield worker

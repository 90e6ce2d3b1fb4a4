"""The fixtures of the test kit, which pytest finds by the entry point of this distribution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    """The application's broker with its Kafka in memory, empty and its own for each test. It keeps nothing
    that the test declares.

    Where the application has no broker, or another kind, it is a broker of its own, with the application's
    actors and middleware. It is Dramatiq's global broker meanwhile, unless the application's own is another.
    """
    from ..broker import KafkaBroker
    from .kit import Kit

    if isinstance(application_broker, KafkaBroker):
        with _global(application_broker, instead_of=None), Kit(application_broker).use():
            yield application_broker
        return
    middleware = None if application_broker is None else list(application_broker.middleware)
    broker = KafkaBroker(middleware=middleware)
    actors = [] if application_broker is None else list(application_broker.actors.values())
    for actor in actors:
        actor.broker = broker
        broker.declare_actor(actor)
    try:
        with _global(broker, instead_of=application_broker), Kit(broker).use():
            yield broker
    finally:
        for actor in actors:
            assert application_broker is not None
            actor.broker = application_broker


@contextmanager
def _global(broker: Broker, *, instead_of: Broker | None) -> Iterator[None]:
    """Let ``broker`` be Dramatiq's global broker for a while, if there is none or ``instead_of``."""
    import dramatiq.broker

    own = vars(dramatiq.broker)
    before = own["global_broker"]
    if before not in (None, instead_of):
        yield
        return
    own["global_broker"] = broker
    try:
        yield
    finally:
        # A module of the application that the test was the first to import has set its own.
        if own["global_broker"] is broker:
            own["global_broker"] = before


@pytest.fixture
def worker(kafka_broker: KafkaBroker) -> Iterator[Worker]:
    """A worker with threads on ``kafka_broker``, for what one thread cannot show. Real time passes as well:
    wait with ``kafka_broker.join(queue_name)``.
    """
    from .kit import current

    with current().threads() as worker:
        yield worker

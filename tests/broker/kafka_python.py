"""The whole of kafka-python's clients, for what tests do to a cluster and the broker never does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from broker.kafka.clients import Clients


@contextmanager
def whole_admin(clients: Clients) -> Iterator[Any]:
    """kafka-python's admin client."""
    with clients.admin() as admin:
        yield admin


@contextmanager
def whole_consumer(clients: Clients, **settings: Any) -> Iterator[Any]:
    """kafka-python's consumer."""
    with closing(clients.consumer(**settings)) as kafka:
        yield kafka

"""The DeadLetters middleware, and the default middleware of a KafkaBroker."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dramatiq.middleware import Middleware, Retries
from dramatiq.middleware import default_middleware as dramatiqs_middleware
from tenacity import Retrying

from ..partition_keys import PartitionKeys
from ..retries import TenacityRetries
from .dead_letter import DeadLetter

OnDeadLetter = Callable[[DeadLetter], None]


class DeadLetters(Middleware):
    """Notifies an application of each dead letter. The broker keeps dead letters without it, too.

    Parameters:
      on_dead_letter: Called after the dead letter is in Kafka and before the delivery completes, never on a
        consumer's thread. When it raises, the delivery is held and the call is repeated, so it must be
        idempotent.
    """

    def __init__(self, *, on_dead_letter: OnDeadLetter | None = None) -> None:
        self.on_dead_letter = on_dead_letter


def default_middleware(
    *, retry: Retrying | None = None, on_dead_letter: OnDeadLetter | None = None
) -> list[Middleware]:
    """Dramatiq's default middleware with TenacityRetries instead of Retries, and with PartitionKeys and
    DeadLetters.

    An application with its own list needs TenacityRetries for actors with ``retry=``, and DeadLetters for
    ``on_dead_letter``.

    Parameters:
      retry: The policy of actors without one; see TenacityRetries.
      on_dead_letter: See DeadLetters.

    Raises:
      RetryPolicyRefused: When ``retry`` cannot run durably.
    """
    kinds = cast("list[type[Middleware]]", dramatiqs_middleware)
    middleware = [TenacityRetries(retry=retry) if kind is Retries else kind() for kind in kinds]
    return [*middleware, PartitionKeys(), DeadLetters(on_dead_letter=on_dead_letter)]

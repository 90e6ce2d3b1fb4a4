"""The DeadLetters middleware, and the list of middleware that a KafkaBroker has by default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from dramatiq.middleware import Middleware, Retries
from dramatiq.middleware import default_middleware as dramatiqs_middleware
from tenacity import Retrying

from ..deliveries.delivery import Delivery
from ..error_text import MAX_TRACEBACK_CHARS, shorten_notes
from ..errors import DeadLetterNotMade
from ..partition_keys import PartitionKeys
from ..retries import TenacityRetries
from .dead_letter import DeadLetter, read_dead_letter
from .record_format import dead_letter_record

if TYPE_CHECKING:
    from ..broker import KafkaBroker

OnDeadLetter = Callable[[DeadLetter], None]


class DeadLetters(Middleware):
    """Tells an application of each dead letter. The broker keeps them with this middleware or without it.

    Parameters:
      on_dead_letter: Called after the dead letter is in Kafka and before the delivery completes, never on a
        consumer's thread. When it raises, the delivery is held and it is called again, so it has to be
        idempotent.
    """

    def __init__(self, *, on_dead_letter: OnDeadLetter | None = None) -> None:
        self.on_dead_letter = on_dead_letter


def add_dead_letter(broker: KafkaBroker, delivery: Delivery, error: BaseException | None) -> None:
    """Put a delivery's dead letter into its outbox, and what the broker's DeadLetters calls into its
    follow-ups.

    A delivery that has its dead letter already keeps that one.

    Raises:
      DeadLetterNotMade: When it cannot be made. The delivery must not be completed then.
    """
    if delivery.dead_letter is not None:
        return
    shorten_notes(delivery.options, MAX_TRACEBACK_CHARS)
    try:
        record = dead_letter_record(
            broker.topics,
            queue_name=delivery.queue_name,
            origin=delivery.origin,
            raw=delivery.raw,
            error=error,
            message=None if delivery.unrun else delivery._message,
            headers=delivery.headers,
        )
        dead_letter = read_dead_letter(delivery.queue_name, record.value, record.headers)
    except Exception as e:
        # Dramatiq tries a nack again only after an error of the connection.
        raise DeadLetterNotMade(f"The dead letter of {delivery.origin} could not be made: {e!r}") from e
    delivery.dead_letter = record
    delivery.outbox.append(record)
    for middleware in broker.middleware:
        if isinstance(middleware, DeadLetters) and middleware.on_dead_letter is not None:
            delivery.follow_ups.append(partial(middleware.on_dead_letter, dead_letter))


def default_middleware(
    *, retry: Retrying | None = None, on_dead_letter: OnDeadLetter | None = None
) -> list[Middleware]:
    """Dramatiq's default middleware, with TenacityRetries in the place of its Retries, PartitionKeys, and
    DeadLetters.

    An application that has a list of its own puts TenacityRetries there for actors with ``retry=``, and
    DeadLetters for ``on_dead_letter``; it needs neither otherwise.

    Parameters:
      retry: The policy of actors that name none; see TenacityRetries.
      on_dead_letter: See DeadLetters.

    Raises:
      RetryPolicyRefused: When ``retry`` cannot be run durably.
    """
    kinds = cast("list[type[Middleware]]", dramatiqs_middleware)
    middleware = [TenacityRetries(retry=retry) if kind is Retries else kind() for kind in kinds]
    return [*middleware, PartitionKeys(), DeadLetters(on_dead_letter=on_dead_letter)]

"""The DeadLetters middleware, and the list of middleware that a KafkaBroker has by default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, Retries
from dramatiq.middleware import default_middleware as dramatiqs_middleware
from tenacity import Retrying

from ..delivery import Delivery
from ..errors import DeadLetterNotMade
from ..keys import PartitionKeys
from ..retries import TenacityRetries
from .letter import DeadLetter, read_letter
from .record import dead_letter_record

if TYPE_CHECKING:
    from ..broker import KafkaBroker

OnDeadLetter = Callable[[DeadLetter], None]


class DeadLetters(Middleware):
    """Keeps what is rejected: its dead letter joins the delivery, which completes only when Kafka has it.

    Parameters:
      on_dead_letter: Called after the dead letter is in Kafka and before the delivery completes, never on a
        consumer's thread. When it raises, the delivery is held and it is called again, so it has to be
        idempotent.
    """

    def __init__(self, *, on_dead_letter: OnDeadLetter | None = None) -> None:
        self.on_dead_letter = on_dead_letter

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        if isinstance(message, Delivery):
            bury(cast("KafkaBroker", broker), message, message._exception)


def bury(broker: KafkaBroker, delivery: Delivery, error: BaseException | None) -> None:
    """Put a delivery's dead letter into its outbox, and what the broker's DeadLetters calls into its
    follow-ups.

    A delivery that has its dead letter already keeps that one.

    Raises:
      DeadLetterNotMade: When it cannot be made. The delivery must not be completed then.
    """
    topic = broker.topics.dead_letters(delivery.queue_name)
    if any(record.topic == topic for record in delivery.outbox):
        return
    try:
        record = dead_letter_record(
            broker.topics,
            queue_name=delivery.queue_name,
            origin=delivery.origin,
            raw=delivery.raw,
            error=error,
            message=delivery._message if delivery._message.actor_name else None,
            headers=getattr(delivery, "headers", ()),
        )
        letter = read_letter(delivery.queue_name, record.value, record.headers)
    except Exception as e:
        # Dramatiq swallows any other error here and completes the delivery, which would then be gone.
        raise DeadLetterNotMade(f"The dead letter of {delivery.origin} could not be made: {e!r}") from e
    delivery.outbox.append(record)
    for middleware in broker.middleware:
        if isinstance(middleware, DeadLetters) and middleware.on_dead_letter is not None:
            delivery.follow_ups.append(partial(middleware.on_dead_letter, letter))


def default_middleware(
    *, retry: Retrying | None = None, on_dead_letter: OnDeadLetter | None = None
) -> list[Middleware]:
    """Dramatiq's default middleware, with TenacityRetries in the place of its Retries, PartitionKeys, and
    DeadLetters.

    Parameters:
      retry: The policy of actors that name none; see TenacityRetries.
      on_dead_letter: See DeadLetters.

    Raises:
      RetryPolicyRefused: When ``retry`` cannot be run durably.
    """
    kinds = cast("list[type[Middleware]]", dramatiqs_middleware)
    middleware = [TenacityRetries(retry=retry) if kind is Retries else kind() for kind in kinds]
    return [*middleware, PartitionKeys(), DeadLetters(on_dead_letter=on_dead_letter)]

"""Dead letters of messages that wait in a topic and can never go back to their queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..complete.completer import PendingDeadLetter
from .dead_letter import read_dead_letter
from .giving_up import tell
from .middleware import DeadLetters
from .record_format import dead_letter_record

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..deliveries.delivery import Origin

logger = logging.getLogger(__name__)


def dead_letter_undelivered(
    broker: KafkaBroker,
    queue_name: str,
    *,
    message_id: str,
    origin: Origin | None,
    raw: bytes,
    headers: Sequence[tuple[str, bytes]],
    error: BaseException,
    then: Callable[[], None] | None = None,
) -> PendingDeadLetter:
    """Begin to keep a message in the dead letters; the errand that is returned is completed once they have
    it, and have been told.

    Parameters:
      message_id: How the message is called in the log, and in the dead letters when it cannot be read.
      origin: Where it first stood in its queue, when that is known.
      raw: The encoded message.
      headers: The headers of the record that its queue refuses.
      then: What comes last. When it raises, it is called again.
    """
    logger.error("The message %s of %r is dead-lettered: %s", message_id, queue_name, error)
    record = dead_letter_record(
        broker.topics,
        queue_name=queue_name,
        origin=origin,
        raw=raw,
        error=error,
        headers=headers,
        message_id=message_id,
    )
    dead_letter = read_dead_letter(queue_name, record.value, record.headers)
    follow_ups: list[Callable[[], None]] = [
        partial(middleware.on_dead_letter, dead_letter)
        for middleware in broker.middleware
        if isinstance(middleware, DeadLetters) and middleware.on_dead_letter is not None
    ]
    follow_ups.append(partial(tell, broker, queue_name, raw, error))
    if then is not None:
        follow_ups.append(then)
    pending = PendingDeadLetter(queue_name, [record], follow_ups)
    broker.completer.run(pending)
    return pending

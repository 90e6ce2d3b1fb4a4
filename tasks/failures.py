"""What follows a dead letter: its submission becomes failed."""

import logging

from broker import DeadLetter
from db import submissions
from db.errors import DatabaseRefused
from tasks.message import ACTOR, generation_of
from tasks.resources import database

logger = logging.getLogger(__name__)


def record_failure(letter: DeadLetter) -> None:
    """Write ``failed`` and the error to the dead letter's submission, unless it has an outcome already.

    The broker calls this once the letter is in Kafka, and again until it returns: while PostgreSQL is away
    the delivery waits.

    A failure that PostgreSQL will never take is logged and left: the dead letter is kept, and being called
    again would hold its delivery for good.

    Raises:
      DatabaseUnavailable: to be called again.
    """
    message = letter.message
    if message is None or message.actor_name != ACTOR:
        return
    item_id = message.args[0] if message.args else message.kwargs.get("item_id")
    if not submissions.is_id(item_id):
        # A row must name an ad, and this message names none. The dead letter itself is in Kafka.
        logger.error("Message %s has no submission to fail: item_id is %r", message.message_id, item_id)
        return
    outcome = submissions.Outcome(
        message_id=message.message_id,
        generation=generation_of(message.options),
        item_id=item_id,
        error_message=letter.error or letter.error_type,
    )
    try:
        with database() as connection:
            submissions.write_outcomes(connection, [outcome])
    except DatabaseRefused as error:
        logger.error("Message %.100s has a dead letter, but cannot have a row: %s", message.message_id, error)

"""The submission of a dead letter becomes failed."""

import logging

from broker import DeadLetter
from db import submissions
from db.errors import DatabaseRefused
from submissions.database import Database
from submissions.message import ACTOR, generation_of

logger = logging.getLogger(__name__)


class FailureRecorder:
    """Writes the failures of messages to their submissions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, dead_letter: DeadLetter) -> None:
        """Write ``failed`` and the error to the dead letter's submission, unless it has an outcome already.

        The deliveries of this process wait meanwhile, so a locked row is waited for only for a moment.

        The broker calls this once the dead letter is in Kafka, and repeats the call until it returns: while
        PostgreSQL is unreachable the delivery waits.

        A failure that PostgreSQL can never store is only logged: the dead letter remains, and another call
        would hold its delivery for ever.

        Raises:
          DatabaseUnavailable: The broker is to repeat the call.
        """
        message = dead_letter.message
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
            error_message=dead_letter.error or dead_letter.error_type,
        )
        try:
            with self._database.transaction() as connection:
                submissions.write_outcomes(connection, [outcome], briefly=True)
        except DatabaseRefused as error:
            logger.error(
                "Message %.100s has a dead letter, but cannot have a row: %s", message.message_id, error
            )

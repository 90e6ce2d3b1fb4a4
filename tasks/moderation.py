"""The actor: it scores one ad and writes the verdict once."""

from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage
from tenacity import Retrying, stop_after_attempt, wait_exponential_jitter

from broker import NotNow, PermanentError, retry_if_temporary
from db import submissions
from db.errors import RowLocked
from settings import get_settings
from submissions.message import ACTOR, QUEUE, generation_of
from tasks.moderator import Job, NothingTaken
from tasks.wiring import moderator

ATTEMPTS = 3
#: A message whose row is locked by another transaction comes back after this time.
LOCKED_DELAY_MS = 1_000


@dramatiq.actor(
    queue_name=QUEUE,
    actor_name=ACTOR,
    store_results=True,
    retry=Retrying(
        retry=retry_if_temporary,
        stop=stop_after_attempt(ATTEMPTS),
        # Jitter spreads the retries of the tasks that one outage failed.
        wait=wait_exponential_jitter(
            multiplier=get_settings().retry_first_wait_s, exp_base=3, max=60, jitter=1
        ),
    ),
)
def moderate_item(item_id: int) -> dict[str, Any]:
    """Score the ad ``item_id`` and write its verdict: pending -> completed, unless the row has an outcome.

    Concurrent calls share their statements and their scoring. A direct call only scores: without a message
    there is no submission.

    Returns:
      ``{"is_violation": bool, "probability": float}``.

    Raises:
      PermanentError: There is no such ad; the submission fails at once.
      DatabaseUnavailable: Another attempt follows.
      NotNow: PostgreSQL is unreachable, or another transaction keeps the submission's row locked; this
        counts as no attempt.
    """
    _check_item_id(item_id)
    message = CurrentMessage.get_current_message()
    try:
        verdict = moderator.answer(_job(item_id, message))
    except RowLocked as error:
        # Another message takes this thread meanwhile.
        if message is not None:
            raise NotNow(str(error), delay=LOCKED_DELAY_MS) from None
        raise
    except NothingTaken as error:
        # The gate may be open again by now: this thread waited for its batch.
        if message is not None:
            raise NotNow(str(error)) from None
        raise
    return {"is_violation": verdict.is_violation, "probability": verdict.probability}


def _job(item_id: int, message: dramatiq.Message[Any] | None) -> Job:
    if message is None:
        return Job(item_id)
    return Job(item_id, message.message_id, generation_of(message.options))


def _check_item_id(item_id: object) -> None:
    """Refuse a value that PostgreSQL cannot hold as an id: anybody can send a message."""
    if not submissions.is_id(item_id):
        raise PermanentError(
            f"item_id must be an integer from 1 to {submissions.MAX_ID}, not {item_id!r:.100}"
        )

"""The task: score one ad and write the verdict down, once."""

from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage
from tenacity import Retrying, stop_after_attempt, wait_exponential_jitter

from broker import PermanentError, retry_if_temporary
from db import items, submissions
from scoring import Ad
from settings import get_settings
from tasks.judging import keep_judgements
from tasks.message import ACTOR, QUEUE, generation_of
from tasks.resources import database, model

ATTEMPTS = 3


@dramatiq.actor(
    queue_name=QUEUE,
    actor_name=ACTOR,
    store_results=True,
    retry=Retrying(
        retry=retry_if_temporary,
        stop=stop_after_attempt(ATTEMPTS),
        # Jitter, so that the tasks which one outage failed do not all come back in the same moment.
        wait=wait_exponential_jitter(
            multiplier=get_settings().retry_first_wait_s, exp_base=3, max=60, jitter=1
        ),
    ),
)
def moderate_item(item_id: int) -> dict[str, Any]:
    """Score the ad ``item_id`` and write its verdict: pending -> completed, unless somebody was faster.

    Called directly instead of sent, it only scores: there is no message to name a submission.

    Returns:
      ``{"is_violation": bool, "probability": float}``.

    Raises:
      PermanentError: when there is no such ad; the submission fails at once.
      DatabaseUnavailable: for another attempt.
    """
    _check_item_id(item_id)
    with database() as connection:
        row = items.read_ads(connection, [item_id]).get(item_id)
    if row is None:
        raise PermanentError(f"There is no ad with item_id {item_id}")
    ad, judge = Ad(*row), model()
    [verdict] = judge.score([ad])
    message = CurrentMessage.get_current_message()
    if message is not None:
        outcome = submissions.Outcome(
            message_id=message.message_id,
            generation=generation_of(message.options),
            item_id=item_id,
            is_violation=verdict.is_violation,
            probability=verdict.probability,
        )
        with database() as connection:
            if submissions.write_outcomes(connection, [outcome]):
                keep_judgements(connection, judge, [outcome], {item_id: ad})
    return {"is_violation": verdict.is_violation, "probability": verdict.probability}


def _check_item_id(item_id: object) -> None:
    """A message may come from anywhere; what PostgreSQL cannot hold as an id is no ad's id."""
    if not submissions.is_id(item_id):
        raise PermanentError(
            f"item_id must be an integer from 1 to {submissions.MAX_ID}, not {item_id!r:.100}"
        )

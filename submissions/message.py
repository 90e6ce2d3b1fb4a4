"""The message of a submission: the contract between those who publish it and the actor that runs it."""

from collections.abc import Mapping
from typing import Any

import dramatiq

from db.outbox import Unpublished
from db.submissions import is_id

QUEUE = "moderation"
ACTOR = "moderate_item"
#: The option in which the broker counts a message's redrives.
_REDRIVES = "redrives"


def message_of(submission: Unpublished) -> dramatiq.Message[Any]:
    """Return the message of a submission, with the message id of its row."""
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=QUEUE,
        actor_name=ACTOR,
        args=(submission.item_id,),
        kwargs={},
        options={_REDRIVES: submission.generation} if submission.generation else {},
        message_id=submission.message_id,
    )
    if submission.traceparent:  # a message is frozen, and the broker writes this attribute into the record
        vars(message)["headers"] = [("traceparent", submission.traceparent.encode())]
    return message


def generation_of(options: Mapping[str, Any]) -> int:
    """Return the number of redrives that a message's options record; usually 0."""
    redrives = options.get(_REDRIVES, 0)
    return redrives if is_id(redrives) else 0

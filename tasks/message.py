"""What a submission's message looks like."""

from typing import Any, Protocol

import dramatiq

from db.outbox import Unpublished

QUEUE = "moderation"
ACTOR = "moderate_item"
_GENERATION = "generation"


class HasOptions(Protocol):
    """A Dramatiq message, or the proxy of one."""

    @property
    def options(self) -> dict[str, Any]: ...


def message_of(submission: Unpublished) -> dramatiq.Message[Any]:
    """Make the message of a submission, under the message id that its row has."""
    return dramatiq.Message(
        queue_name=QUEUE,
        actor_name=ACTOR,
        args=(submission.item_id,),
        kwargs={},
        options={_GENERATION: submission.generation},
        message_id=submission.message_id,
    )


def generation_of(message: HasOptions) -> int:
    """Return how often the submission had been redriven by then; 0 for a plain ``send``."""
    generation = message.options.get(_GENERATION, 0)
    return generation if isinstance(generation, int) else 0

"""What has to be done now and then, besides answering."""

import asyncio
import logging

from api.batching import TooManyWaiting
from api.services import Services
from db.errors import DatabaseError
from tasks.submission import forget_expired_keys

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0


async def keep_up(services: Services) -> None:
    """Delete expired idempotency keys, for as long as the server runs. Every API process does."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await services.call(forget_expired_keys)
        except (DatabaseError, TooManyWaiting) as error:
            logger.debug("Expired idempotency keys stay for now: %s", error)

"""Periodic jobs of an API process."""

import asyncio
import logging

from api.services.async_application import AsyncApplication
from api.services.async_batcher import TooManyWaiting
from db.errors import DatabaseError

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0


async def keep_house(application: AsyncApplication) -> None:
    """Delete expired idempotency keys every :data:`INTERVAL_S`. Every API process does so."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await application.call(lambda called: called.submitter.forget_expired_keys())
        except (DatabaseError, TooManyWaiting) as error:
            logger.debug("Expired idempotency keys are kept until the next run: %s", error)

"""The Idempotency-Key header, after draft-ietf-httpapi-idempotency-key-header-07.

The same key and request lead to the same tasks, for as long as the key is remembered; the same key with
another request is 422, and while the first request with it is under way, 409.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence

from sanic import Request

from api.problems import Conflict, Malformed, Unprocessable
from tasks.submission import Accepted, HandIn, IdempotencyKey, Refused, Reply

HEADER = "idempotency-key"
MAX_CHARACTERS = 255
# A string as RFC 8941 writes it; and, as most clients send it, the same characters without quotes.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"', re.ASCII)
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+", re.ASCII)
#: Twins that arrive together mostly get the same answer: the second asks again before it says 409.
WAITS_FOR_A_TWIN_S = (0.02, 0.05, 0.1, 0.3, 0.5)
RETRY_AFTER_S = 1


def idempotency_key_of(request: Request, operation: str, item_ids: Sequence[int]) -> IdempotencyKey | None:
    """Read the header, with a fingerprint of what the request asks for; None when it is absent.

    Raises:
      Malformed: when it is given twice, empty, too long or not a string of printable ASCII.
    """
    values = request.headers.getall(HEADER, [])
    if not values:
        return None
    if len(values) > 1:
        raise Malformed("Idempotency-Key is given more than once")
    given = values[0].strip()
    if quoted := _QUOTED.fullmatch(given):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(given):
        key = given
    else:
        raise Malformed(
            'Idempotency-Key must be printable ASCII in quotes: "8e03978e-40d5-43dd-bc93-6894a57f9324"'
        )
    if not 1 <= len(key) <= MAX_CHARACTERS:
        raise Malformed(f"Idempotency-Key must have 1 to {MAX_CHARACTERS} characters, not {len(key)}")
    asked = f"{operation} {','.join(map(str, item_ids))}"
    return IdempotencyKey(key, hashlib.sha256(asked.encode()).digest())


async def hand_in(submit: Callable[[HandIn], Awaitable[Reply]], request: HandIn) -> Accepted:
    """Hand the ads in, or return what came of the request with the same key.

    Raises:
      Unprocessable: when the key was used for something else.
      Conflict: when another request with the key is under way and does not end within a second.
    """
    for wait_s in (*WAITS_FOR_A_TWIN_S, None):
        reply = await submit(request)
        if isinstance(reply, Accepted):
            return reply
        if reply is Refused.KEY_REUSED:
            raise Unprocessable("Idempotency-Key was used for another request; use a new one for each")
        if wait_s is not None:
            await asyncio.sleep(wait_s)
    raise Conflict(
        "Another request with this Idempotency-Key is under way; ask again",
        headers={"retry-after": str(RETRY_AFTER_S)},
    )

"""The Idempotency-Key header, after draft-ietf-httpapi-idempotency-key-header-07.

While a key is remembered, the same key and request lead to the same tasks. The same key with another request
is 422, and a key whose first request is still under way is 409.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence

from api.http.parameters import IDEMPOTENCY_KEY, MAX_KEY_CHARACTERS
from api.http.problems import Conflict, Malformed, Unprocessable
from api.http.request import AnyRequest
from submissions.submitting import Accepted, IdempotencyKey, Refused, Reply, SubmissionRequest

HEADER = IDEMPOTENCY_KEY.name.lower()
# A string of RFC 8941; and the same characters without quotes, which most clients send.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"', re.ASCII)
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+", re.ASCII)
#: The waits before a request whose key is in use tries again. After them it answers 409.
KEY_IN_USE_WAITS_S = (0.02, 0.05, 0.1, 0.3, 0.5)
RETRY_AFTER_S = 1


def idempotency_key_of(request: AnyRequest, operation: str, item_ids: Sequence[int]) -> IdempotencyKey | None:
    """Read the header and add a fingerprint of the request; None when it is absent.

    Raises:
      Malformed: It is given twice, empty, too long or not a string of printable ASCII.
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
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Malformed(f"Idempotency-Key must have 1 to {MAX_KEY_CHARACTERS} characters, not {len(key)}")
    asked = f"{operation} {','.join(map(str, item_ids))}"
    return IdempotencyKey.of_caller(request.caller, key, hashlib.sha256(asked.encode()).digest())


async def submit_once(
    submit: Callable[[SubmissionRequest], Awaitable[Reply]], request: SubmissionRequest
) -> Accepted:
    """Submit the ads, or return the result of the earlier request with the same key.

    Raises:
      Unprocessable: The key was used for another request.
      Conflict: Another request with the key is under way and does not end within a second.
    """
    for wait_s in (*KEY_IN_USE_WAITS_S, None):
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

"""The headers of draft-ietf-httpapi-ratelimit-headers-11."""

from collections.abc import Sequence

from api.services.rate_limits import Limit


def limit_headers(limits: Sequence[Limit]) -> list[tuple[bytes, str]]:
    """Return names and values; none without limits."""
    if not limits:
        return []
    return [
        (b"ratelimit-policy", ", ".join([limit.policy for limit in limits])),
        (b"ratelimit", ", ".join([limit.state for limit in limits])),
    ]

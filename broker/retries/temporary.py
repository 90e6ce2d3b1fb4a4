"""The temporary errors: those after which another attempt may succeed."""

from __future__ import annotations

from dramatiq.errors import BrokerConnectionError, RateLimitExceeded
from tenacity import retry_if_exception_type

from ..errors import TemporaryError

#: ``ConnectionError`` and ``TimeoutError`` are Python's: refused, reset, broken pipe, a socket's timeout.
TEMPORARY_ERRORS: tuple[type[Exception], ...] = (
    TemporaryError,
    ConnectionError,
    TimeoutError,
    BrokerConnectionError,
    RateLimitExceeded,
)

#: A tenacity predicate: another attempt for TEMPORARY_ERRORS and their subclasses only. Dramatiq's time limit
#: is not among them: the task would most likely exceed it again.
retry_if_temporary = retry_if_exception_type(TEMPORARY_ERRORS)

"""Retries that survive the end of every process: Dramatiq's own, and tenacity policies run durably."""

from .middleware import TenacityRetries
from .temporary import retry_if_temporary

__all__ = ["TenacityRetries", "retry_if_temporary"]

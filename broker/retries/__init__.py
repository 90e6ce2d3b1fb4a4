"""Retries that outlive every process: Dramatiq's own, and tenacity's policies run durably."""

from .middleware import TenacityRetries
from .temporary import retry_if_temporary

__all__ = ["TenacityRetries", "retry_if_temporary"]

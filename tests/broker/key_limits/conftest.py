"""The worker process of these tests."""

from tests.broker.kit_with_results import QUEUE, kit, results

__all__ = ["QUEUE", "kit", "results"]

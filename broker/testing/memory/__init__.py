"""A Kafka cluster in memory, behind the seam of ``broker/kafka``."""

from .clients import MemoryClients
from .cluster import MemoryCluster
from .faults import ProcessKilled

__all__ = ["MemoryClients", "MemoryCluster", "ProcessKilled"]

"""Messages with a key: one after another, in order, whatever becomes of the one before.

The rest of the broker sees the options (:class:`PartitionKeys`), the lanes of an assignment (:class:`Lanes`),
and the two sides of the lanes topic: what is written there when a delivery ends (``following``) and what is
brought back from there (``releasing``).
"""

from .lanes import LaneEntry, Lanes, SequenceNumber
from .options import PartitionKeys, key_of, why_refused

__all__ = ["LaneEntry", "Lanes", "PartitionKeys", "SequenceNumber", "key_of", "why_refused"]

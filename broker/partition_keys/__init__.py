"""Messages with a partition key run one after another, in order, also when one of them fails.

The rest of the broker uses the options (:class:`PartitionKeys`), the lanes of an assignment (:class:`Lanes`),
and the lanes topic (``record_format``, ``waiting_store``). ``complete/lane_writer`` writes to that topic when
a delivery ends; ``consume/lane_releaser`` returns waiting messages to their queue.
"""

from .lane import LaneEntry, SequenceNumber
from .lanes import Lanes
from .options import PartitionKeys, key_of, why_refused, with_key_headers

__all__ = [
    "LaneEntry",
    "Lanes",
    "PartitionKeys",
    "SequenceNumber",
    "key_of",
    "why_refused",
    "with_key_headers",
]

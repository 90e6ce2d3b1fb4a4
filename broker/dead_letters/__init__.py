"""Dead letters: messages that the broker will not retry, kept in ``{queue}_dlq``."""

from ..process.caller import caller
from .dead_letter import DeadLetter, ImportNote
from .importing import Imported
from .middleware import DeadLetters, default_middleware
from .queue import DeadLetterQueue
from .record_format import dead_letter_record
from .redriving import Resolved
from .resolution import Resolution

__all__ = [
    "DeadLetter",
    "DeadLetterQueue",
    "DeadLetters",
    "ImportNote",
    "Imported",
    "Resolution",
    "Resolved",
    "caller",
    "dead_letter_record",
    "default_middleware",
]

"""Dead letters: messages that will not be tried again by themselves, kept in ``{queue}_dlq``."""

from .dead_letter import DeadLetter
from .middleware import DeadLetters, add_dead_letter, default_middleware
from .queue import DeadLetterQueue, caller
from .record_format import dead_letter_record
from .redriving import Resolved
from .resolution import Resolution

__all__ = [
    "DeadLetter",
    "DeadLetterQueue",
    "DeadLetters",
    "Resolution",
    "Resolved",
    "add_dead_letter",
    "caller",
    "dead_letter_record",
    "default_middleware",
]

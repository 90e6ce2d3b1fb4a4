"""Log lines with the task that they belong to: JSON for programs, text for a terminal.

Nothing of the broker imports this room; applications do.
"""

from .formatters import JSONFormatter, TextFormatter, formatter_for_stderr
from .middleware import TaskLogs

__all__ = ["JSONFormatter", "TaskLogs", "TextFormatter", "formatter_for_stderr"]

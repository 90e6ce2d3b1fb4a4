"""The exit codes of the command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """An exit code.

    OK: the command did, or found, as it was asked.
    FINDING: it found what it was asked to look for and that is bad, or found nothing: an unhealthy worker, a
      problem of a topic, an unknown message.
    USAGE: the command line is wrong. Nothing was done.
    UNREACHABLE: Kafka did not answer.
    FORBIDDEN: Kafka answered, and a right is missing.
    UNDECIDED: it was done in part, or its outcome is not known yet.
    REFUSED: the operator did not confirm. Nothing was done.
    DEFECT: the command has a fault; its traceback is on stderr. What it did is not known.
    INTERRUPTED: Ctrl-C.
    """

    OK = 0
    FINDING = 1
    USAGE = 2
    UNREACHABLE = 3
    FORBIDDEN = 4
    UNDECIDED = 5
    REFUSED = 6
    DEFECT = 70
    INTERRUPTED = 130

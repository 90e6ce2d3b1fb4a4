"""Texts about workers that do not obey a pause. Pure."""

from __future__ import annotations

from .. import PauseResult


def disobedience(queue: str, pause: PauseResult) -> str:
    """The sentence about the workers that may begin tasks of a paused queue."""
    return (
        f"Tasks of {queue!r} may still begin on {', '.join(pause.unknown)}: a worker that cannot read "
        "commands, or one that is in no report, as a worker of an earlier version. A worker with "
        "reports=False obeys, and is named, too."
    )


def unknown_members(queue: str) -> str:
    """The sentence, without its full stop, about a pause whose workers cannot be read."""
    return (
        f"Whether other workers run tasks of {queue!r} is not known: that needs READ on the reports, and "
        "DESCRIBE on the consumer group of the queue"
    )

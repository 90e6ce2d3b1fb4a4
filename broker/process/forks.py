"""Keeps a broker usable after a fork: gunicorn and uWSGI import an application, and may send in it, before
they fork.

Only the forking thread continues in the child. Locks that other threads held stay locked there, and the work
of those threads stops. The connections belong to the parent: one byte sent on them, one shutdown, or one
change to the files that their selector watches would break them for the parent. A part with locks, threads or
connections therefore registers itself, and replaces all of them in the child.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """A part with a state that the child of a fork must not share."""

    def reset_after_fork(self) -> None:
        """Replace locks, and drop threads and connections without using them. Called in the child."""


_parts: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_beginning = threading.Lock()
_pid = os.getpid()


def reset_on_fork(part: ForkAware) -> None:
    """Call ``part.reset_after_fork()`` in the child of each fork, as long as ``part`` exists."""
    _parts.add(part)


def check_for_fork() -> None:
    """Notice a fork without Python's fork hooks: uWSGI calls them only with ``py-call-osafterfork``.

    The check costs one system call.
    """
    if os.getpid() != _pid:
        _reset_parts()


def leave_to_parent(thing: object) -> None:
    """Keep an object of the parent alive in the child, so that its finaliser never runs there.

    The finaliser would close the parent's connection, or write into the parent's file.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _reset_parts() -> None:
    global _pid
    with _beginning:
        if os.getpid() != _pid:
            for part in list(_parts):
                part.reset_after_fork()
            _pid = os.getpid()


def _in_child() -> None:
    global _beginning
    _beginning = threading.Lock()
    _reset_parts()


if hasattr(os, "register_at_fork"):  # not on systems without fork
    os.register_at_fork(after_in_child=_in_child)

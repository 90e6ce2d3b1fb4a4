"""The reaper: a process beside the workers of one ``dramatiq`` command.

It ends the group memberships of workers that died, so that their partitions move within a second and not
after the session timeout. See README.md.
"""

from .death_note import DeathNote
from .death_note_reader import DeathNoteReader
from .process import run_reaper
from .registrar import MembershipSlot, Registrar

__all__ = ["DeathNote", "DeathNoteReader", "MembershipSlot", "Registrar", "run_reaper"]

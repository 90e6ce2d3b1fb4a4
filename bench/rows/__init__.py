"""The rows of the table, in its order."""

from bench.row import Row
from bench.rows.anatomy import ANATOMY
from bench.rows.backlog import BACKLOG
from bench.rows.bulk import BULK
from bench.rows.console import CONSOLE
from bench.rows.delayed import DELAYED
from bench.rows.dkb_calls import COMMANDS
from bench.rows.exporting import EXPORTING
from bench.rows.idle import IDLE
from bench.rows.noop import NOOP
from bench.rows.observing import OBSERVING
from bench.rows.partitions import PARTITIONS
from bench.rows.processes import PROCESSES
from bench.rows.queues import QUEUES
from bench.rows.recovery import RECOVERY
from bench.rows.reports import REPORTS
from bench.rows.restarting import RESTART
from bench.rows.sends import SENDS
from bench.rows.spinning import SPINNING
from bench.rows.starting import START
from bench.rows.waiting import WAITING

ROWS: list[Row] = [
    NOOP,
    *SENDS,
    BULK,
    IDLE,
    ANATOMY,
    *WAITING,
    SPINNING,
    BACKLOG,
    PARTITIONS,
    PROCESSES,
    QUEUES,
    REPORTS,
    EXPORTING,
    COMMANDS,
    CONSOLE,
    OBSERVING,
    DELAYED,
    *RECOVERY,
    RESTART,
    START,
]

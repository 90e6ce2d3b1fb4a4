"""`python -m bench`: this broker and its peers on this machine, side by side. In make: bench, bench-smoke.

Exit codes: 0 measured; 1 a failure or a missing figure; 2 bad arguments.
"""

from __future__ import annotations

import compileall
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bench.command import arguments, exit_code, is_named, say, sizes_of
from bench.rows import ROWS
from bench.running import Plan, keep, preamble, run
from bench.servers import Servers
from dev.child import ChildDied
from dev.stack import ROOT

NAMES = [row.name for row in ROWS]
#: The rows of the short form: one of each kind that has a target.
SMOKE_ROWS = ("noop", "send-16", "bulk", "idle", "wait-10", "spin")


def main() -> int:
    given = arguments("python -m bench", (__doc__ or "").splitlines()[0], NAMES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers and workers are ended
    # As in an installed package, also where PYTHONDONTWRITEBYTECODE is set: a start would compile all files.
    compileall.compile_dir(ROOT / "broker", quiet=1)
    names = given.rows or (SMOKE_ROWS if given.smoke else NAMES)
    plan = Plan(
        rows=[row for row in ROWS if is_named(row.name, names)],
        sizes=sizes_of(given),
        rounds=given.rounds or (1 if given.smoke else 3),
        rest_s=given.rest_s,
        most_others=given.most_others,
        only=frozenset(given.only or ()),
    )
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    home.chmod(0o755)
    try:
        wanted = {contestant.server for row in plan.rows for contestant in plan.contestants(row)}
        with Servers(home, wanted=wanted) as servers:
            say(preamble(servers))
            results = run(plan, servers, home, say)
            if given.keep:
                keep(results, plan, servers, given.keep)
    except (ChildDied, TimeoutError) as error:
        print(f"The bench broke: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return exit_code(results)


if __name__ == "__main__":
    sys.exit(main())

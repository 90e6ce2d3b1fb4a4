"""`python -m bench`: this broker and its peers on this machine, side by side. In make: bench, bench-smoke.

Exit codes: 0 measured; 1 something broke, or a ratio is so bad that noise cannot explain it; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from bench.results import RowResult
from bench.rows import ROWS
from bench.running import Plan, keep, preamble, run
from bench.servers import Servers
from bench.sizes import FULL, SMOKE
from dev.child import ChildDied

NAMES = [row.name for row in ROWS]
#: What the short form runs: one row of each kind that has a target.
SMOKE_ROWS = ("noop", "send-16", "bulk", "idle", "wait-10", "spin")


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers and workers are ended
    sizes = SMOKE if given.smoke else FULL
    changed = {f.name: getattr(given, f.name) for f in fields(sizes) if getattr(given, f.name) is not None}
    names = given.rows or (SMOKE_ROWS if given.smoke else NAMES)
    plan = Plan(
        rows=[row for row in ROWS if row.name in names],
        sizes=replace(sizes, **changed),
        rounds=given.rounds or (1 if given.smoke else 3),
        rest_s=given.rest_s,
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
    return _exit_code(results, strict=given.smoke)


def _exit_code(results: list[RowResult], *, strict: bool) -> int:
    """Missing servers are named and left out; what failed on a server that runs is not forgiven."""
    broken = [
        f"{result.row.name}: {verdict.metric.unit} only {verdict.ratio:.2f}x {verdict.hardest}"
        for result in results
        for verdict in result.verdicts()
        if verdict.broken
    ]
    failed = [f"{result.row.name}: {key}: {why}" for result in results for key, why in result.failed.items()]
    for line in (*broken, *failed):
        print(f"BROKEN {line}", file=sys.stderr)
    return 1 if failed or (strict and broken) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="the short form: small sizes, one round")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="these contestants, such as kafka and stub")
    parser.add_argument("--rounds", type=int, help="3 by default")
    parser.add_argument("--rest-s", type=float, default=0.0, help="a pause after each measurement")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="write JSON, Markdown and SVG there")
    for size in fields(FULL):
        kind = type(getattr(FULL, size.name))
        parser.add_argument(
            f"--{size.name.replace('_', '-')}", type=kind, help=f"{getattr(FULL, size.name):,} by default"
        )
    given = parser.parse_args()
    if unknown := set(given.rows) - set(NAMES):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return given


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

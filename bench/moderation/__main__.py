"""`python -m bench.moderation`: the service beside the design written by hand. In make: bench-moderation.

Exit codes: 0 measured; 1 something broke, or a ratio is so bad that noise cannot explain it; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.machine import described, load
from bench.moderation.rows import Models, rows
from bench.results import RowResult
from bench.running import Plan, keep, run
from bench.servers import Servers
from bench.sizes import FULL, SMOKE
from dev.child import ChildDied
from dev.stack import ROOT
from training import four_features
from training.artifact import write_model

NAMES = ("submissions", "verdicts-1", "verdicts-2", "latency")


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers and workers are ended
    sizes = SMOKE if given.smoke else FULL
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    home.chmod(0o755)
    try:
        plan = Plan(
            rows=[row for row in rows(_models(home)) if row.name in (given.rows or NAMES)],
            sizes=replace(sizes, verdicts=given.verdicts or sizes.verdicts),
            rounds=given.rounds or (1 if given.smoke else 3),
            rest_s=0.0,
            only=frozenset(given.only or ()),
        )
        with Servers(home, wanted={"kafka", "postgresql"}) as servers:
            if servers.missing:
                print(f"Cannot measure: {servers.missing}", file=sys.stderr)
                return 1
            machine = described(servers.versions)
            say(", ".join(f"{name} {value}" for name, value in machine.items()) + f"; load {load():.1f}\n")
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


def _models(home: Path) -> Models:
    """Fit the four-feature model, which is kept for this; the one in use is model.pkl."""
    path = home / "four_features.pkl"
    pipeline = four_features.fit(*four_features.generate(four_features.DEFAULT_ADS, seed=1))
    write_model(pipeline, path, name="four-features", manifest={"threshold": 0.5})
    return Models(path, ROOT / "model.pkl")


def _exit_code(results: list[RowResult], *, strict: bool) -> int:
    lines = [f"{result.row.name}: {key}: {why}" for result in results for key, why in result.failed.items()]
    if strict:
        lines += [
            f"{result.row.name}: {verdict.metric.unit} only {verdict.ratio:.2f}x {verdict.hardest}"
            for result in results
            for verdict in result.verdicts()
            if verdict.broken
        ]
    for line in lines:
        print(f"BROKEN {line}", file=sys.stderr)
    return 1 if lines else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.moderation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="the short form: small sizes, one round")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="these contestants, such as service")
    parser.add_argument("--rounds", type=int, help="3 by default")
    parser.add_argument("--verdicts", type=int, help=f"backlog of the service; {FULL.verdicts:,} by default")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="write JSON and Markdown there")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(NAMES):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return given


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.moderation`: the service beside the design written by hand. In make: bench-moderation.

Exit codes: 0 measured; 1 a failure or a missing figure; 2 bad arguments.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bench.command import arguments, exit_code, say, sizes_of
from bench.machine import described, load
from bench.moderation.rows import Models, rows
from bench.running import Plan, keep, run
from bench.servers import Servers
from dev.child import ChildDied
from dev.stack import ROOT
from training import four_features
from training.artifact import write_model

NAMES = ("submissions", "verdicts-1", "verdicts-2", "verdicts-text", "latency")


def main() -> int:
    given = arguments("python -m bench.moderation", (__doc__ or "").splitlines()[0], NAMES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers and workers are ended
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    home.chmod(0o755)
    try:
        plan = Plan(
            rows=[row for row in rows(_models(home)) if row.name in (given.rows or NAMES)],
            sizes=sizes_of(given),
            rounds=given.rounds or (1 if given.smoke else 3),
            rest_s=given.rest_s,
            most_others=given.most_others,
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
    return exit_code(results)


def _models(home: Path) -> Models:
    """Fit the four-feature model, which exists for this comparison; the model in use is model.pkl."""
    path = home / "four_features.pkl"
    pipeline = four_features.fit(*four_features.generate(four_features.DEFAULT_ADS, seed=1))
    write_model(pipeline, path, name="four-features", manifest={"threshold": 0.5})
    return Models(path, ROOT / "model.pkl")


if __name__ == "__main__":
    sys.exit(main())

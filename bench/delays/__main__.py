"""Measures delayed messages on Apache Kafka. Prints one figure a line.

    python -m bench.delays [late] [survival] [failing] [--count 200000] [--wait-s 120] [--rate 1000] ...

Kafka and the workers run on this machine, each in a separate process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from bench.delays.failing import measure_failing
from bench.delays.ground import Ground
from bench.delays.lateness import measure_lateness
from bench.delays.survival import Survival
from bench.machine import load
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.ports import free_port
from dev.stack import ROOT

WHAT = ("late", "survival", "failing")


def main() -> None:
    given = _arguments()
    home = Path(tempfile.mkdtemp(prefix="bench-delays-"))
    libs = fetch_apache_kafka(Path(os.environ.get("DEV_DIR", ROOT / ".dev")))
    server = ApacheKafkaServer(home, libs=libs, port=free_port())
    try:
        server.start()
        for what in given.what or WHAT:
            print(f"-- {what}, load average {load():.1f}, {time.strftime('%H:%M:%S')}", flush=True)
            _measure(what, server, home, given)
    finally:
        server.kill()
        shutil.rmtree(home)


def _measure(what: str, server: ApacheKafkaServer, home: Path, given: argparse.Namespace) -> None:
    namespace = f"{what}-"
    if what == "failing":
        measure_failing(server, namespace, home, given.failing)
        return
    ground = Ground(server, namespace, home)
    if what == "late":
        measure_lateness(ground, given.rate, given.seconds)
    else:
        Survival(ground, given.count, given.wait_s).measure()
    ground.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="what to measure; by default all of it")
    parser.add_argument("--rate", type=int, default=1_000, help="late: of messages due each second")
    parser.add_argument("--seconds", type=int, default=20, help="late: for which that many are due")
    parser.add_argument("--count", type=int, default=200_000, help="survival: of messages that come and go")
    parser.add_argument("--wait-s", type=float, default=120.0, help="survival: until the first is due")
    parser.add_argument("--failing", type=int, default=10_000, help="failing: of tasks that fail at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()

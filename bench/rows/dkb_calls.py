"""The cost of the command ``dkb``: the processor time and the memory of one call, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.ground import Ground
from bench.place import Place
from bench.row import Contestant, Measured, Metric, Row
from bench.sizes import Sizes
from bench.systems import OURS

CALLS = {"status": ("status", "--sample", "0", "--json"), "metrics": ("metrics", "--once")}


class _Commands(Row):
    def __init__(self) -> None:
        super().__init__(
            "dkb",
            "Calls of dkb",
            [
                Contestant("1", "1 queue", OURS.server),
                Contestant("60", "60 queues", OURS.server),
            ],
            [
                Metric("status_cpu_ms", "status, CPU ms", better="less"),
                Metric("status_mib", "status, MiB", better="less"),
                Metric("metrics_cpu_ms", "metrics --once, CPU ms", better="less"),
                Metric("metrics_mib", "metrics --once, MiB", better="less"),
            ],
            ours="1",
        )

    def work(self, sizes: Sizes) -> str:
        return "dkb status and dkb metrics --once, of queues of 4 partitions with 10 messages each"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        with ground.place(OURS, queues=int(key)) as place:
            ground.send(OURS, place, 10 * int(key))
            measured: Measured = {}
            for name, arguments in CALLS.items():
                cpu_s, mib = _used(place, arguments)
                measured |= {f"{name}_cpu_ms": cpu_s * 1000, f"{name}_mib": mib}
            return measured


def _used(place: Place, arguments: tuple[str, ...]) -> tuple[float, float]:
    """The processor time of a call in seconds, with the start of Python, and its largest memory in MiB."""
    target = ["--bootstrap", place.address, "--namespace", f"{place.queue}-", "--group", place.queue]
    command = [sys.executable, "-m", "broker.console", *target, *arguments]
    called = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(called.pid, 0)
    called.returncode = os.waitstatus_to_exitcode(status)
    if called.returncode != 0:
        raise RuntimeError(f"dkb {arguments[0]} ended with exit code {called.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


COMMANDS = _Commands()

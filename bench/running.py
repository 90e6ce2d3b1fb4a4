"""Runs the rows: every contestant once in each round, so that the other load of the machine affects all
alike.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.ground import Ground, SendingFailed
from bench.machine import described, load
from bench.picture import bars
from bench.results import RowResult
from bench.row import Contestant, Row
from bench.servers import Servers
from bench.sizes import Sizes
from bench.systems import SYSTEMS
from bench.table import durability_table, row_table
from bench.workers import Stalled
from dev.child import ChildDied

#: The errors of a contestant that could not do the work; any other error is a defect of the bench.
FAILURES = (Stalled, SendingFailed, ChildDied, TimeoutError)
#: The repeats of a disturbed measurement. The last one counts; its figures say how much others used.
MAX_REPEATS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """The measurements to run.

    Parameters:
      rest_s: The pause after each measurement, in which the machine is free for others.
      only: The keys of the contestants to measure; all when empty.
      most_others: The cores that other processes may use meanwhile. A measurement with more is repeated,
        at most MAX_REPEATS times. Only some rows measure it.
    """

    rows: list[Row]
    sizes: Sizes
    rounds: int
    rest_s: float
    only: frozenset[str] = frozenset()
    most_others: float = math.inf

    def contestants(self, row: Row) -> list[Contestant]:
        return [c for c in row.contestants if not self.only or c.key in self.only]


def run(plan: Plan, servers: Servers, home: Path, say: Callable[[str], None]) -> list[RowResult]:
    """Measure every row of the plan."""
    ground = Ground(servers, home)
    results = []
    for row in plan.rows:
        result = RowResult(row, plan.sizes)
        for number in range(min(plan.rounds, row.most_rounds)):
            result.rounds.append({})
            for contestant in plan.contestants(row):
                if contestant.key not in result.left_out:
                    _measure(ground, plan, result, contestant, f"round {number + 1}", say)
        say(f"\n{row_table(result)}\n")
        results.append(result)
    return results


def _measure(
    ground: Ground,
    plan: Plan,
    result: RowResult,
    contestant: Contestant,
    when: str,
    say: Callable[[str], None],
) -> None:
    row = result.row
    if missing := contestant.missing or ground.servers.missing.get(contestant.server, ""):
        result.left_out[contestant.key] = missing
        return
    try:
        for _ in range(1 + MAX_REPEATS):
            load_before = load()
            measured = row.measure(ground, plan.sizes, contestant.key)
            if (others := measured.get("others_cores", 0.0)) <= plan.most_others:
                break
            say(f"{row.name}, {when}: {contestant.title}: disturbed, others used {others:.2f} cores")
    except FAILURES as error:
        result.left_out[contestant.key] = result.failed[contestant.key] = str(error).splitlines()[0]
        say(f"{row.name}, {when}: {contestant.title} FAILED: {error}")
        return
    result.rounds[-1][contestant.key] = measured
    result.load.append(load_before)
    figures = ", ".join(f"{m.unit} {measured[m.name]:,.{m.digits}f}" for m in row.metrics)
    say(f"{row.name}, {when}, load {load_before:.1f}: {contestant.title}: {figures}")
    time.sleep(plan.rest_s)


def keep(results: list[RowResult], plan: Plan, servers: Servers, directory: Path) -> None:
    """Write results.json, results.md and, when there is the no-op row, noop.svg.

    Rows of an earlier run in results.json that this run did not measure stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "results.json"
    rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else {}
    machine = described(servers.versions)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for result in results:
        rows[result.row.name] = {"when": when, "sizes": asdict(plan.sizes), **result.as_json()}
        (directory / f"{result.row.name}.md").write_text(f"{row_table(result)}\n", encoding="utf-8")
        if result.row.name == "noop":
            rounds = f"median of {len(result.rounds)} round(s)"
            caption = f"{machine['cores']} cores, {machine['python']}, {when}; {rounds}"
            (directory / "noop.svg").write_text(bars(result, caption), encoding="utf-8")
    durability = {system.title: system.durability for system in SYSTEMS}
    kept = {"machine": machine, "durability": durability, "rows": rows}
    file.write_text(f"{json.dumps(kept, indent=1)}\n", encoding="utf-8")


def preamble(servers: Servers) -> str:
    """The introduction to the figures."""
    machine = ", ".join(f"{name} {value}" for name, value in described(servers.versions).items())
    missing = "".join(f"\nleft out: {name}: {why}" for name, why in servers.missing.items())
    promises = durability_table((system.title, system.durability) for system in SYSTEMS)
    return f"{machine}; load average {load():.1f}{missing}\n\n{promises}\n"

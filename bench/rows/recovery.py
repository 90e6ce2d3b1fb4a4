"""The time after the SIGKILL of a worker until the messages that it ran, or had read ahead, run elsewhere."""

from __future__ import annotations

from bench.ground import Ground
from bench.kills import CUT_OFF_S, MESSAGES, THREADS, Killing, kill_repeatedly
from bench.row import Contestant, Measured, Metric, Row, contestants, percentile
from bench.rows.late_after_kill import LATE_AFTER_KILL
from bench.sizes import Sizes
from bench.systems import BY_KEY

PEERS = ("celery-redis", "celery-rabbitmq", "dramatiq-redis", "dramatiq-rabbitmq")
#: This broker when the reaper dies with the workers.
WHOLE = "kafka-whole"


class _Recovery(Row):
    def __init__(
        self, name: str, title: str, killing: Killing, described: str, ours: list[Contestant]
    ) -> None:
        super().__init__(
            name,
            title,
            [*contestants("kafka"), *ours, *contestants(*PEERS)],
            [
                Metric("p50_s", "p50 s", better="less", digits=2),
                Metric("p90_s", "p90 s", better="less", digits=2),
                Metric("max_s", "max s", better="less", digits=2),
                Metric("kills", "kills"),
                Metric("restarted_s", "command started again, p50 s", better="less", digits=2),
            ],
            most_rounds=1,
        )
        self._killing = killing
        self._described = described

    def work(self, sizes: Sizes) -> str:
        return (
            f"{self._described}; {THREADS} threads a process, {MESSAGES} messages; until the last of them "
            f"runs in a living process; {CUT_OFF_S:.2f} s: not within {CUT_OFF_S:g} s"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        whole = key == WHOLE
        killing = Killing(
            self._killing.commands, self._killing.processes, self._killing.supervised, whole=whole
        )
        found = kill_repeatedly(ground, BY_KEY["kafka" if whole else key], killing, sizes.kills)
        seconds = [recovery.seconds for recovery in found]
        return {
            "p50_s": percentile(seconds, 0.5),
            "p90_s": percentile(seconds, 0.9),
            "max_s": max(seconds),
            "kills": len(found),
            "restarted_s": percentile([recovery.restarted_s for recovery in found], 0.5),
        }


RECOVERY: list[Row] = [
    _Recovery(
        "recovery-two",
        "Recovery: one of two commands",
        Killing(2, 1, supervised=False),
        "SIGKILL of the worker process of one of two commands",
        [Contestant(WHOLE, "this broker, all processes of the command killed", "kafka")],
    ),
    _Recovery(
        "recovery-process",
        "Recovery: one process of a supervised command",
        Killing(1, 2, supervised=True),
        "SIGKILL of one of two worker processes of a supervised command",
        contestants("kafka-3000"),
    ),
    _Recovery(
        "recovery-only",
        "Recovery: the only worker, supervised",
        Killing(1, 1, supervised=True),
        "SIGKILL of the only worker process",
        contestants("kafka-3000"),
    ),
    LATE_AFTER_KILL,
]

"""Where the time of one idle message goes, from the call of send to its task."""

from __future__ import annotations

from dataclasses import replace

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants, percentile
from bench.sizes import Sizes
from bench.stages import PREVIOUS, Stage, ways
from bench.systems import BY_KEY

THREADS = 8
READY = 50
SHARES = {"p50": 0.5, "p99": 0.99}
#: Two spans of several stages: the whole way, and an acknowledged send.
SPANS = {"total": (Stage.CALLED, Stage.ENTERED), "send": (Stage.CALLED, Stage.ACKNOWLEDGED)}
STAGES = {stage.name.lower(): (previous, stage) for stage, previous in PREVIOUS.items()}


class _Anatomy(Row):
    def __init__(self) -> None:
        super().__init__(
            "anatomy",
            "The stages of an idle message",
            contestants("kafka", "bare-client"),
            [
                Metric(f"{name}_{share}_ms", f"{name} {share} ms", better="less", digits=2)
                for name in (*SPANS, *STAGES)
                for share in SHARES
            ],
            [Target("send_p50_ms", ("bare-client",), at_least=0.9)],
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"{sizes.idle} messages, one every 50 to 150 ms; each stage ends with the hand-over that names it"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        directory = ground.directory()
        with (
            ground.place(system, task="stamp", stages=str(directory)) as place,
            ground.workers(system, place, processes=1, threads=THREADS) as workers,
        ):
            workers.tally.open_gate()
            # A worker is ready when it has run a task.
            ground.send(system, replace(place, task="noop"), READY)
            workers.wait_for(READY)
            ground.send(system, place, sizes.idle, how="spaced")
            workers.wait_for(READY + 1 + sizes.idle)
        messages = ways(directory)
        return {
            f"{name}_{share}_ms": 1000 * percentile([way[end] - way[begin] for way in messages], part)
            for name, (begin, end) in (SPANS | STAGES).items()
            for share, part in SHARES.items()
        }


ANATOMY = _Anatomy()

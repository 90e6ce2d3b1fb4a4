"""Where the time of one idle message goes, from the call of send to its task."""

from __future__ import annotations

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants, percentile
from bench.rows.idle import idle_latencies_s
from bench.sizes import Sizes
from bench.stages import PREVIOUS, Stage, ways

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
        directory = ground.directory()
        idle_latencies_s(ground, sizes, key, stages=str(directory))
        messages = ways(directory)
        return {
            f"{name}_{share}_ms": 1000 * percentile([way[end] - way[begin] for way in messages], part)
            for name, (begin, end) in (SPANS | STAGES).items()
            for share, part in SHARES.items()
        }


ANATOMY = _Anatomy()

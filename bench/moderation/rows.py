"""The rows: accepted submissions, written verdicts, and the latency from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.ground import Ground
from bench.moderation.load import hammer, missing_wrk, submit_steadily
from bench.moderation.site import (
    ADS,
    Cost,
    Site,
    handwritten_api,
    handwritten_worker,
    service_api,
    service_worker,
    site,
)
from bench.row import Contestant, Measured, Metric, Row, Target, percentile
from bench.sizes import Sizes
from dev.child import Child

SUBMIT = "/async_predict?item_id="


@dataclass(frozen=True, slots=True)
class Models:
    """Files of models: the four-feature one that both sides load, and the one in use."""

    four_features: Path
    in_use: Path


class Submissions(Row):
    """wrk against one API process, without a worker."""

    def __init__(self, models: Models) -> None:
        wrk = missing_wrk()
        super().__init__(
            "submissions",
            "Accepted submissions",
            [
                Contestant("service", "this service", "kafka", wrk),
                Contestant("keyed", "this service, with an API key", "kafka", wrk),
                Contestant("handwritten", "written by hand", "kafka", wrk),
                Contestant("noop", "Sanic's handler that does nothing", "kafka", wrk),
            ],
            [
                Metric("per_s", "accepted/s"),
                Metric("p50_ms", "p50 ms", better="less", digits=1),
                Metric("p99_ms", "p99 ms", better="less", digits=1),
                Metric("all_us", "CPU µs / task", better="less"),
                Metric("api_us", "API CPU µs / task", better="less"),
                Metric("postgres_us", "PostgreSQL CPU µs / task", better="less"),
                Metric("kafka_us", "Kafka CPU µs / task", better="less"),
                Metric("statements", "statements / task", better="less", digits=2),
                Metric("wal_bytes", "WAL bytes / task", better="less"),
                Metric("kafka_bytes", "Kafka bytes / task", better="less"),
            ],
            [
                Target("per_s", ("handwritten",), at_least=5),
                Target("all_us", ("handwritten",), at_least=3),
                Target("api_us", ("handwritten",), at_least=3),
                Target("per_s", ("keyed",), at_least=0.95),
                Target("per_s", ("noop",), at_least=0.5),
            ],
            ours="service",
        )
        self._models = models

    def work(self, sizes: Sizes) -> str:
        return f"POST for {sizes.submitting_s:g} s from 64 connections of wrk, one API process"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        with site(ground.servers, ground.home, model=self._models.four_features) as here:
            here.make_topics()
            ours = key in ("service", "keyed")
            url, api = here.api(service_api if ours else handwritten_api)
            api_key = here.new_key() if key == "keyed" else ""
            path = "/noop?item_id=" if key == "noop" else SUBMIT
            # Connections, caches, prepared statements.
            hammer(url, path, 1.0, ads=ADS, home=here.home, key=api_key)
            warm, before = here.ask("count(*)"), here.cost()
            cpu_s = (here.cpu_s(api), *here.servers_cpu_s())
            seen = hammer(url, path, sizes.submitting_s, ads=ADS, home=here.home, key=api_key)
            used_s = (here.cpu_s(api), *here.servers_cpu_s())
            count = int(here.ask("count(*)") - warm) or int(seen.per_s * sizes.submitting_s) or 1
            each = here.cost().since(before, count) if key != "noop" else Cost(0.0, 0.0, 0.0)
            api_us, postgres_us, kafka_us = (
                (after - begin) / count * 1e6 for begin, after in zip(cpu_s, used_s, strict=True)
            )
        return {
            "per_s": seen.per_s,
            "p50_ms": seen.p50_ms,
            "p99_ms": seen.p99_ms,
            "all_us": api_us + postgres_us + kafka_us,
            "api_us": api_us,
            "postgres_us": postgres_us,
            "kafka_us": kafka_us,
            "statements": each.statements,
            "wal_bytes": each.wal_bytes,
            "kafka_bytes": each.kafka_bytes,
        }


class Verdicts(Row):
    """Workers that start on a backlog.

    Parameters:
      processes: The processes of the service's worker.
    """

    def __init__(self, models: Models, *, processes: int) -> None:
        ours = f"service-{processes}"
        others = [Contestant("handwritten", "written by hand, a commit per record", "kafka")]
        targets = [Target("per_s", ("handwritten",), at_least=10 if processes == 1 else 13)]
        if processes == 1:
            others += [
                Contestant("per-poll", "written by hand, a commit per poll", "kafka"),
                Contestant("in-use", "this service with the model in use", "kafka"),
            ]
        super().__init__(
            f"verdicts-{processes}",
            f"Verdicts, {processes} worker process(es) of 64 threads",
            [Contestant(ours, "this service", "kafka"), *others],
            [
                Metric("per_s", "verdicts/s"),
                Metric("cpu_s", "worker CPU s / 1,000", better="less", digits=2),
                Metric("statements", "statements / task", better="less", digits=2),
                Metric("wal_bytes", "WAL bytes / task", better="less"),
                Metric("kafka_bytes", "Kafka bytes / task", better="less"),
            ],
            targets,
            ours=ours,
        )
        self._models = models
        self._processes = processes

    def work(self, sizes: Sizes) -> str:
        return (
            f"a backlog of {sizes.verdicts:,} submissions (written by hand: of {_by_hand(sizes):,}); "
            "the first fifth is not counted"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        by_hand = key.startswith("handwritten") or key == "per-poll"
        count = _by_hand(sizes) if by_hand else sizes.verdicts
        model = self._models.in_use if key.endswith("in-use") else self._models.four_features
        with site(ground.servers, ground.home, model=model) as here:
            here.fill(count, by_hand=by_hand)
            before = here.cost()
            worker = self._worker(here, key)
            here.wait_for_verdicts(count, worker)
            each, cpu_s = here.cost().since(before, count), here.cpu_s(worker)
            rate = here.verdicts_per_s()
        return {
            "per_s": rate,
            "cpu_s": cpu_s / count * 1000,
            "statements": each.statements,
            "wal_bytes": each.wal_bytes,
            "kafka_bytes": each.kafka_bytes,
        }

    def _worker(self, here: Site, key: str) -> Child:
        if key.startswith("handwritten"):
            return here.start("worker", handwritten_worker("record"))
        if key == "per-poll":
            return here.start("worker", handwritten_worker("poll"))
        return here.start("worker", service_worker(self._processes))


class VerdictsOfText(Verdicts):
    """The worker with the model in use, which reads the text, beside one by hand with its four numbers."""

    def __init__(self, models: Models) -> None:
        super().__init__(models, processes=1)
        self.name = "verdicts-text"
        self.title = "Verdicts with the model in use, 1 worker process of 64 threads"
        self.ours = "in-use"
        self.contestants = [
            Contestant("in-use", "this service with the model in use", "kafka"),
            Contestant("handwritten", "written by hand, four numbers, a commit per record", "kafka"),
            Contestant("handwritten-in-use", "written by hand, the model in use", "kafka"),
        ]
        self.targets = [Target("per_s", ("handwritten",), at_least=6)]


class Latency(Row):
    """An API and a worker under a low load."""

    def __init__(self, models: Models) -> None:
        super().__init__(
            "latency",
            "Submit to verdict",
            [
                Contestant("service", "this service", "kafka"),
                Contestant("handwritten", "written by hand", "kafka"),
            ],
            [
                Metric("p50_ms", "p50 ms", better="less", digits=1),
                Metric("p99_ms", "p99 ms", better="less", digits=1),
            ],
            [Target("p50_ms", ("handwritten",), at_least=1)],
            ours="service",
        )
        self._models = models

    def work(self, sizes: Sizes) -> str:
        return (
            f"{sizes.load_per_s:g} submissions a second for {sizes.steady_s:g} s, a fifth of what the worker "
            "written by hand can do; from the begin of one transaction to the commit of the other"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        ours = key == "service"
        with site(ground.servers, ground.home, model=self._models.four_features) as here:
            here.make_topics()
            worker = here.start("worker", service_worker(1) if ours else handwritten_worker("record"))
            url, _ = here.api(service_api if ours else handwritten_api)
            warm = int(sizes.load_per_s)
            submit_steadily(url, SUBMIT, warm, per_s=sizes.load_per_s, ads=ADS)
            here.wait_for_verdicts(warm, worker)
            count = int(sizes.load_per_s * sizes.steady_s)
            submit_steadily(url, SUBMIT, count, per_s=sizes.load_per_s, ads=ADS)
            here.wait_for_verdicts(warm + count, worker)
            seen = here.latencies_s(after=warm)
        return {"p50_ms": percentile(seen, 0.5) * 1000, "p99_ms": percentile(seen, 0.99) * 1000}


def _by_hand(sizes: Sizes) -> int:
    """The number of tasks of the hand-written design, which takes ten times as long for each."""
    return max(200, sizes.verdicts // 10)


def rows(models: Models) -> list[Row]:
    return [
        Submissions(models),
        Verdicts(models, processes=1),
        Verdicts(models, processes=2),
        VerdictsOfText(models),
        Latency(models),
    ]

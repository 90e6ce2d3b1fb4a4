"""The speed with which the model loads and scores: ``python -m bench.model``.

One thread, after a warm-up: a worker meets the same words repeatedly, and its first ads are few.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from scoring import load_model
from training.generator import generate

T = TypeVar("T")
BATCH = 64
TARGETS = {"load_s": 1.0, "ads_per_s": 3_000, "alone_p50_ms": 1.0, "bytes": 5_000_000}


def main() -> None:
    """Print the figures as JSON, each beside its target."""
    parser = argparse.ArgumentParser(prog="python -m bench.model")
    parser.add_argument("--model", default="model.pkl")
    parser.add_argument("--ads", type=int, default=3_200)
    arguments = parser.parse_args()
    load, model = _timed(lambda: load_model(arguments.model))
    ads = [labelled.ad for labelled in generate(arguments.ads, seed=5, split="test")]

    def score_all() -> None:
        for start in range(0, len(ads), BATCH):
            model.score(ads[start : start + BATCH])

    first, _ = _timed(score_all)
    rounds = [_timed(score_all)[0] for _ in range(3)]
    alone = [_timed(partial(model.score, [ad]))[0] for ad in ads[:1000]]
    explained = [_timed(partial(model.explain, ad))[0] for ad in ads[:200]]
    figures = {
        "version": model.version,
        "mean_characters": round(sum(len(ad.name) + len(ad.description) for ad in ads) / len(ads)),
        "load_s": load.wall_s,
        "load_cpu_s": load.cpu_s,
        "ads_per_s_first_pass": len(ads) / first.cpu_s,
        "ads_per_s": len(ads) / min(cost.cpu_s for cost in rounds),
        "ads_per_s_by_the_clock": len(ads) / min(cost.wall_s for cost in rounds),
        "alone_p50_ms": 1000 * median(cost.wall_s for cost in alone),
        "alone_cpu_p50_ms": 1000 * median(cost.cpu_s for cost in alone),
        "explain_cpu_p50_ms": 1000 * median(cost.cpu_s for cost in explained),
        "bytes": Path(arguments.model).stat().st_size,
        "targets": TARGETS,
    }
    print(json.dumps(figures, indent=2))


@dataclass(frozen=True, slots=True)
class Cost:
    """The elapsed time, and the processor time, which is meaningful on a busy machine, too."""

    wall_s: float
    cpu_s: float


def _timed(work: Callable[[], T]) -> tuple[Cost, T]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = work()
    return Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s), result


if __name__ == "__main__":
    main()

"""How fast the model loads and scores: ``python -m bench.model``.

One thread, warm: a worker meets the same words over and over, and the first ads of its life are few.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
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
    load_s, model = _timed(lambda: load_model(arguments.model))
    ads = [labelled.ad for labelled in generate(arguments.ads, seed=5, split="test")]
    cold_s, _ = _timed(
        lambda: [model.score(ads[start : start + BATCH]) for start in range(0, len(ads), BATCH)]
    )
    warm_s = min(
        _timed(lambda: [model.score(ads[start : start + BATCH]) for start in range(0, len(ads), BATCH)])[0]
        for _ in range(3)
    )
    alone_ms = sorted(1000 * _timed(partial(model.score, [ad]))[0] for ad in ads[:1000])
    explain_ms = sorted(1000 * _timed(partial(model.explain, ad))[0] for ad in ads[:200])
    figures = {
        "version": model.version,
        "mean_characters": sum(len(ad.name) + len(ad.description) for ad in ads) / len(ads),
        "load_s": load_s,
        "ads_per_s_first_pass": len(ads) / cold_s,
        "ads_per_s": len(ads) / warm_s,
        "alone_p50_ms": alone_ms[len(alone_ms) // 2],
        "alone_p99_ms": alone_ms[len(alone_ms) * 99 // 100],
        "explain_p50_ms": explain_ms[len(explain_ms) // 2],
        "bytes": Path(arguments.model).stat().st_size,
        "targets": TARGETS,
    }
    print(json.dumps(figures, indent=2))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()

"""The figures of the evaluation: how well probabilities separate violations from honest ads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

Probabilities = npt.NDArray[np.float64]
_DRAWS = 1_000  # of the bootstrap
_INTERVAL = (2.5, 97.5)  # percentiles: 95 % of the draws are between them
WITH_INTERVALS = ("roc_auc", "recall_at_95_precision", "recall_at_90_precision", "accuracy_at_half", "brier")


def figures(violates: Sequence[bool], probabilities: Probabilities) -> dict[str, Any]:
    """Return the figures of one set of ads, None for those that need both kinds and have one."""
    truth = np.asarray(violates, dtype=bool)
    if truth.all() or not truth.any():
        return {"ads": len(truth), "violations": int(truth.sum()), "roc_auc": None}
    precision, recall, _ = precision_recall_curve(truth, probabilities)
    return {
        "ads": len(truth),
        "violations": int(truth.sum()),
        "roc_auc": float(roc_auc_score(truth, probabilities)),
        "average_precision": float(average_precision_score(truth, probabilities)),
        "precision_at_95_recall": float(precision[recall >= 0.95].max()),
        **{
            f"recall_at_{least}_precision": float(recall[precision >= least / 100].max())
            for least in (90, 95, 99)
        },
        "brier": float(brier_score_loss(truth, probabilities)),
        "accuracy_at_half": float(((probabilities >= 0.5) == truth).mean()),
    }


def intervals(violates: Sequence[bool], probabilities: Probabilities) -> dict[str, list[float]]:
    """Return for each figure of `WITH_INTERVALS` the 95 % interval of a bootstrap over the ads.

    Empty for ads of one kind, and for so few ads that most draws have one kind.
    """
    truth = np.asarray(violates, dtype=bool)
    if truth.all() or not truth.any():
        return {}
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(_DRAWS):
        times = np.bincount(rng.integers(0, len(truth), len(truth)), minlength=len(truth))
        if times[truth].any() and times[~truth].any():
            drawn.append(weighted_figures(truth, probabilities, times))
    if len(drawn) < _DRAWS / 2:
        return {}
    bounds = np.percentile(np.array(drawn), _INTERVAL, axis=0).T.tolist()
    return dict(zip(WITH_INTERVALS, bounds, strict=True))


def weighted_figures(
    truth: npt.NDArray[np.bool_], probabilities: Probabilities, times: npt.NDArray[np.int64]
) -> list[float]:
    """Return the figures of `WITH_INTERVALS` for ads of which each is there so many ``times``.

    scikit-learn's functions need fifty times as long, which a thousand draws make minutes.
    """
    order = np.argsort(-probabilities, kind="stable")
    broken, found = truth[order], np.cumsum(times[order] * truth[order])
    wronged = np.cumsum(times[order] * ~broken)
    last = np.r_[np.diff(probabilities[order]) != 0, True]  # of the ads with the same probability
    found, wronged = found[last], wronged[last]
    recall = found / found[-1]
    precision = found / np.maximum(found + wronged, 1)
    area = np.trapezoid(np.r_[0, recall], np.r_[0, wronged / wronged[-1]])
    right = times[(probabilities >= 0.5) == truth].sum() / times.sum()
    brier = (times * (probabilities - truth) ** 2).sum() / times.sum()
    recalls = [recall[precision >= least].max(initial=0.0) for least in (0.95, 0.9)]
    return [float(area), *map(float, recalls), float(right), float(brier)]


def auc_against(honest: Probabilities, violating: Probabilities) -> float | None:
    """Return the ROC AUC of some violations against the honest ads, None where there are none."""
    if not len(honest) or not len(violating):
        return None
    truth = np.r_[np.zeros(len(honest)), np.ones(len(violating))]
    return float(roc_auc_score(truth, np.r_[honest, violating]))


def reliability(
    violates: Sequence[bool], probabilities: Probabilities, bins: int = 10
) -> list[dict[str, Any]]:
    """Return, for each tenth of the scale that has ads, their mean probability and the share that violate."""
    truth = np.asarray(violates, dtype=bool)
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        {
            "from": number / bins,
            "ads": int((place == number).sum()),
            "mean_probability": float(probabilities[place == number].mean()),
            "share_of_violations": float(truth[place == number].mean()),
        }
        for number in range(bins)
        if (place == number).any()
    ]

"""How well probabilities separate violations from honest ads: the figures of the evaluation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

Probabilities = npt.NDArray[np.float64]


def figures(violates: Sequence[bool], probabilities: Probabilities) -> dict[str, float | None]:
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
        "recall_at_99_precision": float(recall[precision >= 0.99].max()),
        "brier": float(brier_score_loss(truth, probabilities)),
        "accuracy_at_half": float(((probabilities >= 0.5) == truth).mean()),
    }


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

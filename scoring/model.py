"""A loaded model: ads in, verdicts out."""

from collections.abc import Sequence
from typing import Any

from scoring.ad import Ad, Verdict


class Model:
    """A fitted scikit-learn pipeline with its version and threshold.

    ``pipeline`` takes a sequence of `Ad` and answers ``predict_proba`` of shape ``(n, 2)``, the second column
    being the probability of a violation. Safe to call from several threads: scoring changes nothing.
    """

    def __init__(self, pipeline: Any, *, version: str, threshold: float) -> None:
        self.pipeline = pipeline
        self.version = version
        self.threshold = threshold

    def score(self, ads: Sequence[Ad]) -> list[Verdict]:
        """Score a batch in one ``predict_proba``; the verdicts are in the order of ``ads``."""
        if not ads:
            return []
        probabilities = self.pipeline.predict_proba(ads)[:, 1].tolist()
        return [Verdict(probability >= self.threshold, probability) for probability in probabilities]

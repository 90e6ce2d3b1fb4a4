"""A loaded model: ads in, verdicts out, and what to do with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from scoring.ad import Ad, Decision, Thresholds, Verdict
from scoring.explanation import Explanation, explain


class Model:
    """A fitted scikit-learn pipeline with its version and thresholds.

    ``pipeline`` takes a sequence of `Ad` and answers ``predict_proba`` of shape ``(n, 2)``, the second
    column being the probability of a violation. Safe to call from several threads: scoring changes nothing
    that counts.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        version: str,
        threshold: float,
        thresholds: Mapping[int | None, Thresholds] | None = None,
    ) -> None:
        """Take ``thresholds`` by category, None for the others; without any, ``threshold`` is both."""
        self.pipeline = pipeline
        self.version = version
        self.threshold = threshold
        self._thresholds = dict(thresholds or {})
        self._usual = self._thresholds.get(None, Thresholds(threshold, threshold))

    def score(self, ads: Sequence[Ad]) -> list[Verdict]:
        """Score a batch in one ``predict_proba``; the verdicts are in the order of ``ads``."""
        if not ads:
            return []
        probabilities = self.pipeline.predict_proba(ads)[:, 1].tolist()
        return [Verdict(probability >= self.threshold, probability) for probability in probabilities]

    def thresholds_for(self, category: int) -> Thresholds:
        """Return the probabilities at which an ad of ``category`` is published, looked at or rejected."""
        return self._thresholds.get(category, self._usual)

    def decide(self, probability: float, category: int) -> Decision:
        """Return ``approve``, ``review`` or ``reject`` for an ad of ``category`` and its ``probability``."""
        thresholds = self.thresholds_for(category)
        if probability < thresholds.approve_below:
            return "approve"
        return "reject" if probability >= thresholds.reject_from else "review"

    def explain(self, ad: Ad) -> Explanation:
        """Say which rule the ad's score points to, and which parts of its text and which features moved it.

        Raises
        ------
        NotExplainable
            The model reads no text and knows no rules (the first model).
        """
        return explain(self.pipeline, ad)

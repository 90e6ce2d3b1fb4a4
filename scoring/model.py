"""A loaded model: it turns ads into verdicts and verdicts into decisions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scoring.ad import Ad, Decision, Thresholds, Verdict
from scoring.explanation import Explanation, explain


class Model:
    """A fitted scikit-learn pipeline with its version and thresholds.

    ``pipeline`` takes a sequence of `Ad` and answers ``predict_proba`` of shape ``(n, 2)``, the second
    column being the probability of a violation. Several threads may use a model at once.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        version: str,
        threshold: float,
        thresholds: Mapping[int | None, Thresholds] | None = None,
        trained_share: float | None = None,
        violation_share: float | None = None,
    ) -> None:
        """Take ``thresholds`` by category, None for the others; without any, ``threshold`` is both.

        ``trained_share`` is the share of violations among the ads that the probabilities were calibrated on,
        ``violation_share`` the share on the site. With both, each probability is that of an ad of the site.
        """
        self.pipeline = pipeline
        self.version = version
        self.threshold = threshold
        self._thresholds = dict(thresholds or {})
        self._usual = self._thresholds.get(None, Thresholds(threshold, threshold))
        self._shift = 0.0
        if trained_share is not None and violation_share is not None:
            self._shift = _log_odds(violation_share) - _log_odds(trained_share)

    def score(self, ads: Sequence[Ad]) -> list[Verdict]:
        """Score a batch in one ``predict_proba``; the verdicts are in the order of ``ads``."""
        if not ads:
            return []
        probabilities = self.probabilities(ads)
        return [Verdict(probability >= self.threshold, probability) for probability in probabilities]

    def probabilities(self, ads: Sequence[Ad]) -> list[float]:
        """Return the probability of a violation for each ad, for the share of violations on the site."""
        found = self.pipeline.predict_proba(ads)[:, 1]
        if self._shift:
            with np.errstate(divide="ignore"):  # of 0 and 1, which stay as they are
                found = 1 / (1 + np.exp(-(np.log(found) - np.log1p(-found) + self._shift)))
        return [float(probability) for probability in found]

    def thresholds_for(self, category: int) -> Thresholds:
        """Return the probabilities between which an ad of ``category`` is looked at by a moderator."""
        return self._thresholds.get(category, self._usual)

    def decide(self, probability: float, category: int) -> Decision:
        """Return ``approve``, ``review`` or ``reject`` for an ad of ``category`` and its ``probability``."""
        thresholds = self.thresholds_for(category)
        if probability < thresholds.approve_below:
            return "approve"
        return "reject" if probability >= thresholds.reject_from else "review"

    def explain(self, ad: Ad) -> Explanation:
        """Return the rule that the ad's score points to, and the parts and features that moved the score.

        Raises
        ------
        NotExplainable
            The model reads no text and knows no rules (the first model).
        """
        return explain(self.pipeline, ad, self._shift)


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))

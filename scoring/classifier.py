"""Turns features into the probability that each rule is broken, and that any is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from scoring.rules import FINE, TOPICAL_RULE

_SIGN_ROUNDS = 3  # how often the columns of the wrong sign are left out and the rest is fitted again
_LEAST = 1e-12  # keeps logarithms finite
EVIDENCE_CAP = 8.0  # log-odds: above it, more evidence of the same rules adds nothing

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mixture:
    """How the evidence, the second opinion and the topic become one probability.

    The log-odds that the words of an ad break a rule are ``evidence * E + opinion * O + offset``: E are the
    capped log-odds of the rules' regressions together, O those of the second opinion. The log-odds of a
    wrong category are ``topic * T + topic_offset``, T those of its regression. Training chooses the five
    numbers by ads of authors and templates that the model has not seen.
    """

    evidence: float = 1.0
    opinion: float = 0.0
    offset: float = 0.0
    topic: float = 1.0
    topic_offset: float = 0.0


class RuleClassifier(ClassifierMixin, BaseEstimator):
    """One logistic regression for each rule, each with only the columns that concern it, and a `Mixture`.

    A regression of all columns would learn which rules happen to occur together in its training ads.
    """

    def __init__(self, strength: float = 1.0, mixture: Mixture | None = None) -> None:
        self.strength = strength
        self.mixture = mixture

    def fit(
        self,
        X: Any,
        y: Sequence[str],
        sample_weight: Any = None,
        columns: dict[str, npt.NDArray[np.bool_]] | None = None,
        signs: npt.NDArray[np.int8] | None = None,
        opinion: int | None = None,
    ) -> Self:
        """Fit on features and the rule of each ad, `FINE` for none.

        ``columns`` gives for a rule the columns of its regression; a rule without an entry has all.
        ``signs`` has 1 for a column whose weight must not be negative, -1 for one whose weight must not be
        positive. ``opinion`` is the column of the second opinion, which no regression has.
        """
        labels = np.asarray(y)
        self.rules_ = sorted(set(y) - {FINE})
        if not self.rules_ or FINE not in set(y):
            raise ValueError("labels of both kinds are needed: ads that break a rule and ads that break none")
        self.opinion_ = opinion
        self.lexical_ = np.array([rule != TOPICAL_RULE for rule in self.rules_])
        self.weights_ = np.zeros((X.shape[1], len(self.rules_)), dtype=np.float32)
        self.bias_ = np.zeros(len(self.rules_))
        for place, rule in enumerate(self.rules_):
            read = (columns or {}).get(rule, np.ones(X.shape[1], dtype=bool)).copy()
            if opinion is not None:
                read[opinion] = False
            for _ in range(_SIGN_ROUNDS):
                chosen = np.flatnonzero(read)
                regression = LogisticRegression(C=self.strength, max_iter=300, tol=1e-4)
                regression.fit(X[:, chosen], labels == rule, sample_weight=sample_weight)
                weights = regression.coef_[0]
                wrong = np.zeros(len(chosen), dtype=bool) if signs is None else weights * signs[chosen] < 0
                if not wrong.any():
                    break
                read[chosen[wrong]] = False
            self.weights_[chosen, place] = np.where(wrong, 0.0, weights)
            self.bias_[place] = regression.intercept_[0]
        # In the width of the rows: otherwise each product converts them. Rounded, they compress better.
        self.weights_ = self.weights_.astype(np.float64)
        self.classes_ = np.array([False, True])
        self._product: Numbers | None = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_product"}

    def parts(self, X: Any) -> Numbers:
        """Return E, O and T of `Mixture`, shape ``(n, 3)``; T is ``-inf`` for a model without that rule."""
        return self._parts(*self._scores(X))

    def rule_probabilities(self, X: Any) -> Numbers:
        """Return the probability that each of ``rules_`` is broken, shape ``(n, len(rules_))``.

        The rules of words share the probability that words break a rule, each by the odds of its evidence.
        """
        scores, opinion = self._scores(X)
        by_words, by_topic = log_odds(self._parts(scores, opinion), self._mixture())
        lexical = self.lexical_
        probabilities = np.zeros(scores.shape)
        if lexical.any():
            shares = np.exp(scores[:, lexical] - scores[:, lexical].max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            probabilities[:, lexical] = shares * expit(by_words)[:, None]
        probabilities[:, ~lexical] = expit(by_topic)[:, None]
        return probabilities

    def predict_proba(self, X: Any) -> Numbers:
        """Return ``[fine, violation]`` for each row, shape ``(n, 2)``."""
        violation = mixed(self.parts(X), self._mixture())
        return np.column_stack([1 - violation, violation])

    def predict(self, X: Any) -> npt.NDArray[np.bool_]:
        """Return for each row whether a violation is the likelier."""
        return self.predict_proba(X)[:, 1] >= 0.5

    def effects(self, column: int, rule: str) -> float:
        """Return how much a value of 1 in a column adds to the log-odds of a rule, below the cap."""
        mixture = self._mixture()
        if column == self.opinion_:
            return 0.0 if rule == TOPICAL_RULE else mixture.opinion
        scale = mixture.topic if rule == TOPICAL_RULE else mixture.evidence
        return float(self.weights_[column, self.rules_.index(rule)]) * scale

    def _mixture(self) -> Mixture:
        return self.mixture or Mixture()

    def _scores(self, X: Any) -> tuple[Numbers, Numbers]:
        """Return the log-odds of each rule's regression, and the second opinion (0 without one)."""
        product = getattr(self, "_product", None)
        if product is None:
            # A last column picks the second opinion: one product is faster than one more column index.
            picked = np.zeros((len(self.weights_), 1))
            if self.opinion_ is not None:
                picked[self.opinion_] = 1.0
            product = self._product = np.hstack([self.weights_, picked])
        sums = np.asarray(X @ product, dtype=np.float64)
        return sums[:, :-1] + self.bias_, sums[:, -1]

    def _parts(self, scores: Numbers, opinion: Numbers) -> Numbers:
        lexical = self.lexical_
        evidence = np.minimum(_any_log_odds(scores[:, lexical]), EVIDENCE_CAP)
        topic = scores[:, ~lexical].sum(axis=1) if not lexical.all() else np.full(len(scores), -np.inf)
        return np.column_stack([evidence, opinion, topic])


def log_odds(parts: Numbers, mixture: Mixture) -> tuple[Numbers, Numbers]:
    """Return the log-odds that words break a rule, and that the category is wrong, each of shape ``(n,)``."""
    evidence, opinion, topic = parts.T
    by_words = mixture.evidence * evidence + mixture.opinion * opinion + mixture.offset
    return by_words, mixture.topic * topic + mixture.topic_offset


def mixed(parts: Numbers, mixture: Mixture) -> Numbers:
    """Return the probability of any violation, shape ``(n,)``."""
    by_words, by_topic = log_odds(parts, mixture)
    probability: Numbers = 1 - expit(-by_words) * expit(-by_topic)
    return probability


def _any_log_odds(scores: Numbers) -> Numbers:
    """Return the log-odds that at least one of independent rules is broken; ``-inf`` for no rules."""
    if not scores.shape[1]:
        return np.full(len(scores), -np.inf)
    log_fine = -np.logaddexp(0, scores).sum(axis=1)
    odds: Numbers = np.log(np.maximum(-np.expm1(log_fine), _LEAST)) - log_fine
    return odds

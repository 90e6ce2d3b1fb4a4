"""From features to the probability of each rule being broken, and of any."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

FINE = ""  # the label of ads that break no rule
_SIGN_ROUNDS = 3  # columns of the wrong sign are left out and the rest fitted anew
_LEAST = 1e-12  # keeps logarithms finite


class RuleClassifier(ClassifierMixin, BaseEstimator):
    """One logistic regression per rule, each reading only the columns that concern it; together, a noisy or.

    A regression that read all columns would learn what rules happen to go together in its training ads.
    ``temperature`` and ``offset`` set the probability of any violation: log-odds become ``(log-odds -
    offset) / temperature``. Training chooses them by ads whose templates the model has not seen.
    """

    def __init__(self, strength: float = 1.0, temperature: float = 1.0, offset: float = 0.0) -> None:
        self.strength = strength
        self.temperature = temperature
        self.offset = offset

    def fit(
        self,
        X: Any,
        y: Sequence[str],
        sample_weight: Any = None,
        columns: dict[str, npt.NDArray[np.bool_]] | None = None,
        signs: npt.NDArray[np.int8] | None = None,
    ) -> Self:
        """Fit on features and the rule of each ad, `FINE` for none.

        ``columns`` says for a rule which columns its regression reads; a rule without an entry reads all.
        ``signs`` has 1 for a column that may only speak for a violation, -1 for one that may only speak
        against it.
        """
        labels = np.asarray(y)
        self.rules_ = sorted(set(y) - {FINE})
        if not self.rules_ or FINE not in set(y):
            raise ValueError("labels of both kinds are needed: ads that break a rule and ads that break none")
        self.weights_ = np.zeros((X.shape[1], len(self.rules_)), dtype=np.float32)
        self.bias_ = np.zeros(len(self.rules_))
        for place, rule in enumerate(self.rules_):
            read = (columns or {}).get(rule, np.ones(X.shape[1], dtype=bool))
            for _ in range(_SIGN_ROUNDS):
                chosen = np.flatnonzero(read)
                regression = LogisticRegression(C=self.strength, max_iter=300, tol=1e-4)
                regression.fit(X[:, chosen], labels == rule, sample_weight=sample_weight)
                weights = regression.coef_[0]
                wrong = np.zeros(len(chosen), dtype=bool) if signs is None else weights * signs[chosen] < 0
                if not wrong.any():
                    break
                read = read.copy()
                read[chosen[wrong]] = False
            self.weights_[chosen, place] = np.where(wrong, 0.0, weights)
            self.bias_[place] = regression.intercept_[0]
        # In the width of the rows: else each product would convert them anew. Rounded, they compress better.
        self.weights_ = self.weights_.astype(np.float64)
        self.classes_ = np.array([False, True])
        return self

    def rule_probabilities(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each of ``rules_`` being broken, shape ``(n, len(rules_))``."""
        return 1 / (1 + np.exp(-self._scores(X)))

    def log_odds(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the log-odds of any violation before calibration, shape ``(n,)``."""
        log_fine = -np.logaddexp(0, self._scores(X)).sum(axis=1)
        return np.log(np.maximum(-np.expm1(log_fine), _LEAST)) - log_fine

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return ``[fine, violation]`` for each row, shape ``(n, 2)``."""
        violation = 1 / (1 + np.exp(-(self.log_odds(X) - self.offset) / self.temperature))
        return np.column_stack([1 - violation, violation])

    def predict(self, X: Any) -> npt.NDArray[np.bool_]:
        """Say of each row whether a violation is the likelier."""
        return self.predict_proba(X)[:, 1] >= 0.5

    def _scores(self, X: Any) -> npt.NDArray[np.float64]:
        return np.asarray(X @ self.weights_, dtype=np.float64) + self.bias_

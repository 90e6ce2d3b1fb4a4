"""One regression per rule, together a noisy or."""

import numpy as np
import pytest
from scipy import sparse

from scoring.classifier import FINE, RuleClassifier

# Two columns, each the mark of one rule; a third that speaks against both.
ROWS = sparse.csr_matrix(
    np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]] * 20, dtype=float)
)
LABELS = ["a", "b", FINE, FINE, FINE, "a"] * 20


def test_each_rule_is_pointed_to_by_its_own_column() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    likely = classifier.rule_probabilities(ROWS[:2])
    assert [classifier.rules_[place] for place in likely.argmax(axis=1)] == ["a", "b"]


def test_the_probability_of_any_violation_is_the_noisy_or_of_the_rules() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    rules = classifier.rule_probabilities(ROWS)
    np.testing.assert_allclose(classifier.predict_proba(ROWS)[:, 1], 1 - (1 - rules).prod(axis=1))


def test_a_column_that_may_only_accuse_never_excuses() -> None:
    signs = np.array([1, 1, 1], dtype=np.int8)
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS, signs=signs)
    assert (classifier.weights_ >= 0).all()


def test_a_rule_reads_only_the_columns_that_concern_it() -> None:
    columns = {"a": np.array([True, False, True]), "b": np.array([False, True, True])}
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS, columns=columns)
    assert classifier.weights_[1, classifier.rules_.index("a")] == 0
    assert classifier.weights_[0, classifier.rules_.index("b")] == 0


def test_probabilities_stay_finite_however_extreme_the_row() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    extreme = sparse.csr_matrix(np.array([[1e6, 0, 0], [0, 0, 1e6]]))
    assert np.isfinite(classifier.predict_proba(extreme)).all()


@pytest.mark.parametrize("labels", [[FINE] * 6, ["a"] * 6])
def test_labels_of_one_kind_cannot_be_learned_from(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        RuleClassifier().fit(ROWS[:6], labels)

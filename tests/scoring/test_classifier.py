"""One regression per rule, their evidence mixed with a second opinion."""

import numpy as np
import pytest
from scipy import sparse

from scoring.classifier import EVIDENCE_CAP, Mixture, RuleClassifier
from scoring.rules import FINE, TOPICAL_RULE

# Two columns, each the mark of one rule; a third that speaks against both.
ROWS = sparse.csr_matrix(
    np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]] * 20, dtype=float)
)
LABELS = ["a", "b", FINE, FINE, FINE, "a"] * 20


def test_each_rule_is_pointed_to_by_its_own_column() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    likely = classifier.rule_probabilities(ROWS[:2])
    assert [classifier.rules_[place] for place in likely.argmax(axis=1)] == ["a", "b"]


def test_the_rules_of_words_share_the_probability_of_a_violation_by_words() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    rules = classifier.rule_probabilities(ROWS)
    np.testing.assert_allclose(classifier.predict_proba(ROWS)[:, 1], rules.sum(axis=1))


def test_a_wrong_category_is_a_violation_beside_those_of_words() -> None:
    labels = [TOPICAL_RULE if label == "b" else label for label in LABELS]
    classifier = RuleClassifier(10.0).fit(ROWS, labels)
    rules = classifier.rule_probabilities(ROWS)
    np.testing.assert_allclose(classifier.predict_proba(ROWS)[:, 1], 1 - (1 - rules).prod(axis=1))


def test_the_second_opinion_counts_as_the_mixture_says_and_no_regression_reads_it() -> None:
    mixture = Mixture(evidence=0.5, opinion=2.0, offset=-1.0)
    classifier = RuleClassifier(10.0, mixture).fit(ROWS, LABELS, opinion=2)
    assert not classifier.weights_[2].any()
    evidence, opinion, _ = classifier.parts(ROWS).T
    np.testing.assert_array_equal(opinion, ROWS[:, [2]].toarray().ravel())
    odds = 0.5 * evidence + 2.0 * opinion - 1.0
    np.testing.assert_allclose(classifier.predict_proba(ROWS)[:, 1], 1 / (1 + np.exp(-odds)))


def test_evidence_is_capped_however_much_of_it_a_row_has() -> None:
    classifier = RuleClassifier(10.0).fit(ROWS, LABELS)
    much, more = sparse.csr_matrix(np.array([[50.0, 0, 0], [500.0, 0, 0]]))
    assert classifier.parts(much)[0, 0] == classifier.parts(more)[0, 0] == EVIDENCE_CAP


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

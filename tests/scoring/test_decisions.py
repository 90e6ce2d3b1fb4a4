"""Two thresholds a category: publish, look at, reject."""

from typing import Any

import numpy as np
import pytest

from scoring import Ad, Model, Thresholds

MODEL = Model(
    None, version="v", threshold=0.5, thresholds={None: Thresholds(0.1, 0.9), 12: Thresholds(0.02, 0.98)}
)


@pytest.mark.parametrize(
    ("probability", "category", "decision"),
    [
        (0.05, 5, "approve"),
        (0.1, 5, "review"),
        (0.89, 5, "review"),
        (0.9, 5, "reject"),
        (0.05, 12, "review"),
        (0.95, 12, "review"),
        (1.0, 12, "reject"),
        (0.0, 77, "approve"),
    ],
)
def test_the_thresholds_of_the_category_decide(probability: float, category: int, decision: str) -> None:
    assert MODEL.decide(probability, category) == decision


def test_a_model_without_thresholds_of_its_own_sends_nothing_to_review() -> None:
    model = Model(None, version="v", threshold=0.5)
    assert [model.decide(p, 1) for p in (0.49, 0.5)] == ["approve", "reject"]


class Certain:
    """A pipeline that gives every ad the same probability."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def predict_proba(self, ads: Any) -> np.ndarray:
        return np.array([[1 - self.probability, self.probability]] * len(ads))


AD = Ad(1, 1, True, "Sofa", "Soft", category=5, images_qty=2)


@pytest.mark.parametrize(
    ("trained", "site", "before", "after"),
    [
        (0.5, 0.5, 0.7, 0.7),
        (0.5, 0.02, 0.5, 0.02),
        (0.5, 0.02, 0.98, 0.5),
        (0.46, 0.46, 0.3, 0.3),
        (0.5, 0.02, 1.0, 1.0),
        (0.5, 0.02, 0.0, 0.0),
    ],
)
def test_probabilities_are_those_of_a_site_with_its_own_share_of_violations(
    trained: float, site: float, before: float, after: float
) -> None:
    model = Model(Certain(before), version="v", threshold=0.5, trained_share=trained, violation_share=site)
    [verdict] = model.score([AD])
    assert verdict.probability == pytest.approx(after)


def test_a_model_that_does_not_know_its_own_share_of_violations_is_left_alone() -> None:
    [verdict] = Model(Certain(0.7), version="v", threshold=0.5, violation_share=0.02).score([AD])
    assert verdict.probability == 0.7

"""Two thresholds a category: publish, look at, reject."""

import pytest

from scoring import Model, Thresholds

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

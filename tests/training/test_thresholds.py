"""Thresholds follow from what mistakes cost."""

import pytest

from scoring.categories import CATEGORIES
from training.thresholds import BY_CATEGORY, USUAL, Costs, manifest_thresholds, thresholds


@pytest.mark.parametrize("costs", [USUAL, *BY_CATEGORY.values(), Costs(100, 5)])
def test_between_the_thresholds_a_look_is_the_cheapest_and_outside_it_is_not(costs: Costs) -> None:
    approve, reject = thresholds(costs)
    for probability in (n / 200 for n in range(201)):
        options = {
            "approve": probability * costs.missed,
            "review": 1.0,
            "reject": (1 - probability) * costs.wronged,
        }
        decision = "approve" if probability < approve else "reject" if probability >= reject else "review"
        assert options[decision] == pytest.approx(min(options.values()), abs=0.01)


def test_a_miss_that_costs_more_lets_less_through() -> None:
    assert thresholds(Costs(30, 12))[0] < thresholds(Costs(12, 12))[0]


def test_the_manifest_names_categories_that_exist() -> None:
    written = manifest_thresholds()
    assert set(map(int, set(written) - {"usual"})) <= set(CATEGORIES)

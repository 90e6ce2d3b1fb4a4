"""Computes the thresholds between publishing, a moderator's look and rejecting, from the costs of mistakes.

The unit is one look of a moderator. With probability ``p`` of a violation, publishing costs ``p * missed``,
rejecting ``(1 - p) * wronged``, a look 1. The cheapest of the three is to publish below ``1 / missed``, to
reject from ``1 - 1 / wronged`` on, and to look in between.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a published violation and of a rejected honest ad, in looks of a moderator."""

    missed: float
    wronged: float


USUAL = Costs(missed=12, wronged=12)
# Where people lose their health, their home or a month's wage, a miss is dear; where the ad is the seller's
# living or costs a lot to place, so is a wrong rejection.
BY_CATEGORY = {
    7: Costs(missed=25, wronged=12),  # kids
    9: Costs(missed=15, wronged=12),  # pets: prepaid puppies
    10: Costs(missed=20, wronged=20),  # services
    11: Costs(missed=25, wronged=25),  # jobs
    12: Costs(missed=30, wronged=30),  # real estate
    13: Costs(missed=15, wronged=25),  # vehicles
    15: Costs(missed=25, wronged=12),  # beauty and health: medicine
    16: Costs(missed=20, wronged=12),  # food: alcohol
    17: Costs(missed=20, wronged=12),  # tickets: prepaid and never sent
}


def thresholds(costs: Costs) -> tuple[float, float]:
    """Return the probabilities below which to publish and from which on to reject."""
    return round(1 / costs.missed, 4), round(1 - 1 / costs.wronged, 4)


def manifest_thresholds() -> dict[str, list[float]]:
    """Return ``[approve_below, reject_from]`` for model.json: the ``usual`` ones, and those of categories."""
    return {
        "usual": list(thresholds(USUAL)),
        **{str(category): list(thresholds(costs)) for category, costs in sorted(BY_CATEGORY.items())},
    }

"""What goes into a model and what comes out of it."""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["approve", "review", "reject"]


@dataclass(frozen=True, slots=True)
class Ad:
    """One classified ad with what is known of its seller.

    ``category`` is 0..100; ``images_qty`` counts pictures. Text may be anything a database holds, empty
    included.
    """

    item_id: int
    seller_id: int
    is_verified_seller: bool
    name: str
    description: str
    category: int
    images_qty: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Does the ad break a rule, and how probable is that (0..1, finite)."""

    is_violation: bool
    probability: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Publish an ad below the one probability, reject it from the other on, look at it in between."""

    approve_below: float
    reject_from: float

"""The input of a model and its output."""

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

Decision = Literal["approve", "review", "reject"]


@dataclass(frozen=True, slots=True)
class Ad:
    """One classified ad with the facts about its seller.

    ``category`` is 0..100; ``images_qty`` counts pictures. Text may be anything a database holds, empty
    included.

    Raises
    ------
    TypeError
        A text is no string or ``images_qty`` no whole number: a missing value of a table, as None or NaN.
    """

    item_id: int
    seller_id: int
    is_verified_seller: bool
    name: str
    description: str
    category: int
    images_qty: int

    def __post_init__(self) -> None:
        """Refuse a missing value here, by name; the model would raise another error, or answer NaN."""
        if not (isinstance(self.name, str) and isinstance(self.description, str)):
            raise TypeError(f"name and description of ad {self.item_id} are not both text")
        if not isinstance(self.images_qty, (int, Integral)):  # the second are NumPy's, and slower to tell
            raise TypeError(f"images_qty of ad {self.item_id} is {self.images_qty!r}, not a whole number")


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

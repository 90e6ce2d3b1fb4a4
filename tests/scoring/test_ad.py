"""An ad with a missing value is refused where it is made, and not scored as something else."""

import math
from typing import Any

import numpy as np
import pytest

from scoring import Ad

FIELDS: dict[str, Any] = {
    "item_id": 7,
    "seller_id": 1,
    "is_verified_seller": False,
    "name": "Sofa",
    "description": "Soft",
    "category": 5,
    "images_qty": 2,
}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("name", None, "name and description of ad 7 are not both text"),
        ("description", math.nan, "name and description of ad 7 are not both text"),
        ("images_qty", None, "images_qty of ad 7 is None, not a whole number"),
        ("images_qty", math.nan, "images_qty of ad 7 is nan, not a whole number"),
    ],
)
def test_a_missing_value_is_named_with_its_ad(field: str, value: object, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Ad(**{**FIELDS, field: value})


@pytest.mark.parametrize("images_qty", [2, True, np.int64(2)])
def test_whole_numbers_of_any_type_are_taken(images_qty: Any) -> None:
    assert Ad(**{**FIELDS, "images_qty": images_qty}).images_qty == images_qty

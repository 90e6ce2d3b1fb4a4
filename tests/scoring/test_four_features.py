"""The first model's four numbers are the seed contract's."""

from dataclasses import replace

import numpy as np

from scoring import Ad
from scoring.four_features import FourFeatures

AD = Ad(1, 2, True, "name", "d" * 250, category=12, images_qty=3)


def test_an_ad_becomes_the_four_numbers_of_the_contract() -> None:
    np.testing.assert_allclose(FourFeatures().fit([AD]).transform([AD]), [[1.0, 0.3, 0.25, 0.12]])


def test_more_than_ten_pictures_count_as_ten() -> None:
    assert FourFeatures().transform([replace(AD, images_qty=25)])[0, 1] == 1.0


def test_no_ads_become_an_empty_table_of_four_columns() -> None:
    assert FourFeatures().transform([]).shape == (0, 4)

"""The first model's features: four numbers about an ad, none of its words."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from scoring.ad import Ad

FOUR_FEATURES = ("is_verified_seller", "images_qty", "description_length", "category")


class FourFeatures(TransformerMixin, BaseEstimator):
    """Makes rows ``[is_verified_seller, min(images_qty, 10)/10, len(description)/1000, category/100]``."""

    def fit(self, ads: Sequence[Ad], y: Any = None) -> Self:
        """Mark the transformer as fitted, as scikit-learn requires. The features are fixed."""
        self.n_features_out_ = len(FOUR_FEATURES)
        return self

    def transform(self, ads: Sequence[Ad]) -> npt.NDArray[np.float64]:
        """Return an array of shape ``(len(ads), 4)``."""
        rows = [
            (
                float(ad.is_verified_seller),
                min(ad.images_qty, 10) / 10,
                len(ad.description) / 1000,
                ad.category / 100,
            )
            for ad in ads
        ]
        return np.asarray(rows, dtype=np.float64).reshape(-1, len(FOUR_FEATURES))

"""Verdicts for a waiting client. Nothing is stored."""

import logging
from collections.abc import Sequence

from db.items import AdFields
from scoring import Ad, Model, ModelRefused, Verdict
from submissions.models import Models
from submissions.outage_log import OutageLog

__all__ = ["CannotScore", "ModelUnavailable", "Predictor", "Verdict"]

logger = logging.getLogger(__name__)


class ModelUnavailable(Exception):
    """There is no model to score with; the log gives the reason."""


class CannotScore(Exception):
    """The model failed on this ad."""


class Predictor:
    """Scores ads with the model of this process. Thread-safe."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._outages = OutageLog("The model", logger)

    def predict(self, ads: Sequence[AdFields]) -> list[Verdict | CannotScore]:
        """Score the ads in one ``predict_proba``; when that fails, one by one, so that an ad fails alone.

        Raises:
          ModelUnavailable: The model is refused. The next call reads the file again.
        """
        model = self.model()
        scorable = [
            Ad(
                ad.item_id,
                ad.seller_id,
                ad.is_verified_seller,
                ad.name,
                ad.description,
                ad.category,
                ad.images_qty,
            )
            for ad in ads
        ]
        try:
            return list(model.score(scorable))
        except Exception:  # noqa: BLE001 - a pipeline can raise anything, and one ad must not fail the others
            return [_score_alone(model, ad) for ad in scorable]

    def trouble(self) -> str | None:
        """Return why there is no model, or None when there is one. The first call loads it."""
        try:
            self.model()
        except ModelUnavailable as error:
            return str(error)
        return None

    def model(self) -> Model:
        """Return the model in use.

        Raises:
          ModelUnavailable: The model is refused.
        """
        try:
            model = self._models.current()
        except ModelRefused as refused:
            self._outages.went_away(refused)
            raise ModelUnavailable(str(refused)) from refused
        self._outages.came_back()
        return model


def _score_alone(model: Model, ad: Ad) -> Verdict | CannotScore:
    try:
        [verdict] = model.score([ad])
    except Exception as error:  # a pipeline can raise anything
        logger.exception("The model failed on an ad")
        return CannotScore(f"{type(error).__name__}: {error}")
    return verdict

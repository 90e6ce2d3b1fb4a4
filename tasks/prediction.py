"""Verdicts for somebody who waits for them: nothing is written down."""

import logging
from collections.abc import Sequence

from db.items import AdFields
from scoring import Ad, Model, ModelRefused, Verdict
from tasks.availability import Availability
from tasks.resources import model

__all__ = ["CannotScore", "ModelUnavailable", "Verdict", "model_trouble", "predict"]

logger = logging.getLogger(__name__)

_model = Availability("The model", logger)


class ModelUnavailable(Exception):
    """There is no model to score with; the log says why."""


class CannotScore(Exception):
    """The model failed on this ad."""


def predict(ads: Sequence[AdFields]) -> list[Verdict | CannotScore]:
    """Score the ads in one ``predict_proba``; when that fails, one by one, so that an ad fails alone.

    Raises:
      ModelUnavailable: when the model is refused. The next call looks at the file again.
    """
    loaded = _load()
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
        return list(loaded.score(scorable))
    except Exception:  # noqa: BLE001 - a pipeline can raise anything, and one ad may not fail the others
        return [_alone(loaded, ad) for ad in scorable]


def model_trouble() -> str | None:
    """Return why there is no model, or None when there is one. Loads it if that was not done yet."""
    try:
        _load()
    except ModelUnavailable as error:
        return str(error)
    return None


def _load() -> Model:
    try:
        loaded = model()
    except ModelRefused as refused:
        _model.went_away(refused)
        raise ModelUnavailable(str(refused)) from refused
    _model.came_back()
    return loaded


def _alone(loaded: Model, ad: Ad) -> Verdict | CannotScore:
    try:
        [verdict] = loaded.score([ad])
    except Exception as error:  # as above
        logger.exception("The model failed on an ad")
        return CannotScore(f"{type(error).__name__}: {error}")
    return verdict

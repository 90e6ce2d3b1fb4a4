"""The judgement of a verdict: its model, thresholds and decision, and the shadow model's opinion."""

import logging
from collections.abc import Mapping, Sequence, Set

from db import submissions
from db.items import ad_hash
from db.judgements import Judgement
from db.submissions import Outcome
from scoring import Ad, Model, Verdict

logger = logging.getLogger(__name__)


def judge(
    model: Model, outcomes: Sequence[Outcome], ads: Mapping[int, Ad], shadow: Model | None = None
) -> list[Judgement]:
    """Return the judgement of each verdict. No transaction should be open: the shadow model scores.

    Parameters:
      model: The model that gave the verdicts.
      outcomes: The verdicts.
      ads: The scored ads, by item id.
      shadow: The model on trial.
    """
    shadows = _scored(shadow, [ads[outcome.item_id] for outcome in outcomes])
    return [
        _judgement(model, outcome, ads[outcome.item_id], shadow, verdict)
        for outcome, verdict in zip(outcomes, shadows, strict=True)
    ]


def log_differences(outcomes: Sequence[Outcome], judged: Sequence[Judgement], written: Set[str]) -> None:
    """Log the written verdicts for which the shadow model would have decided otherwise."""
    for outcome, row in zip(outcomes, judged, strict=True):
        differs = row.shadow_decision not in (None, row.decision)
        if differs and submissions.storable(outcome.message_id) in written:
            logger.info(
                "Shadow model %s would %s item %d (%.3f) where %s decided %s (%.3f)",
                *(row.shadow_version, row.shadow_decision, outcome.item_id, row.shadow_probability),
                *(row.model_version, row.decision, outcome.probability),
            )


def _judgement(
    model: Model, outcome: Outcome, ad: Ad, shadow: Model | None, verdict: Verdict | None
) -> Judgement:
    if outcome.probability is None:
        raise ValueError(f"the outcome of message {outcome.message_id} is no verdict")
    thresholds = model.thresholds_for(ad.category)
    compared = shadow is not None and verdict is not None
    return Judgement(
        message_id=outcome.message_id,
        generation=outcome.generation,
        model_version=model.version,
        threshold=model.threshold,
        approve_below=thresholds.approve_below,
        reject_from=thresholds.reject_from,
        decision=model.decide(outcome.probability, ad.category),
        shadow_version=shadow.version if shadow and compared else None,
        shadow_is_violation=verdict.is_violation if verdict else None,
        shadow_probability=verdict.probability if verdict else None,
        shadow_decision=shadow.decide(verdict.probability, ad.category) if shadow and verdict else None,
        ad_hash=ad_hash(ad),
    )


def _scored(shadow: Model | None, ads: Sequence[Ad]) -> Sequence[Verdict | None]:
    """Return the shadow model's verdicts. Its failure is logged and fails no task."""
    if shadow is not None:
        try:
            return shadow.score(ads)
        except Exception:  # a pipeline on trial can raise anything
            logger.exception("Shadow model %s failed on a batch of %d ads", shadow.version, len(ads))
    return [None] * len(ads)

"""Fits the model that reads ads, and sets its probabilities by ads of templates that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.pipeline import Pipeline

from scoring.classifier import FINE, RuleClassifier
from scoring.features import AdFeatures
from scoring.rules import RULES
from training.generator import LabelledAd
from training.labelled_csv import UNKNOWN_RULE

DEFAULT_ADS = 10_000
STRENGTH = 1.0  # inverse of the regularisation; see EVALUATION.md for what others gave
_FOLDS = 2
_LIKELY = 0.5  # a rule at least so probable is taken for the one that an ad breaks
_TEMPERATURES = (0.3, 5.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns raw scores into probabilities: see `RuleClassifier`."""

    temperature: float
    offset: float


def fit_text_model(
    ads: Sequence[LabelledAd],
    *,
    weights: Sequence[float] | None = None,
    calibrate_on: Sequence[bool] | None = None,
) -> Pipeline:
    """Fit the pipeline on labelled ads.

    ``weights`` says how much each ad counts; ``calibrate_on`` which ads set the probabilities (default: all).
    The calibration comes from ads left out by family, the final weights from all of them.
    """
    weight = np.ones(len(ads)) if weights is None else np.asarray(weights, dtype=float)
    ads = _with_likely_rules(ads, weight)
    calibration = _calibrate(ads, weight, calibrate_on)
    pipeline = _fit(ads, weight)
    classifier: RuleClassifier = pipeline[-1]
    classifier.set_params(temperature=calibration.temperature, offset=calibration.offset)
    return pipeline


def _fit(ads: Sequence[LabelledAd], weight: npt.NDArray[np.float64]) -> Pipeline:
    features, classifier = AdFeatures(), RuleClassifier(STRENGTH)
    labels = [labelled.rule or FINE for labelled in ads]
    rows = features.fit_transform(
        [labelled.ad for labelled in ads], labels, [labelled.family for labelled in ads]
    )
    columns = {rule: features.columns_of(rule) for rule in RULES}
    classifier.fit(rows, labels, sample_weight=weight, columns=columns, signs=features.signs())
    return Pipeline([("features", features), ("rules", classifier)])


def _with_likely_rules(ads: Sequence[LabelledAd], weight: npt.NDArray[np.float64]) -> Sequence[LabelledAd]:
    """Give violations whose rule nobody wrote down the one that a model of the other ads finds in them.

    Otherwise every one of them would teach that rule that such an ad does not break it. What breaks no known
    rule stays a class of its own.
    """
    unknown = [place for place, labelled in enumerate(ads) if labelled.rule == UNKNOWN_RULE]
    known = [place for place, labelled in enumerate(ads) if labelled.rule != UNKNOWN_RULE]
    if not unknown or len({bool(ads[place].rule) for place in known}) < 2:
        return ads
    pipeline = _fit([ads[place] for place in known], weight[known])
    rows = pipeline[0].transform([ads[place].ad for place in unknown])
    probabilities = pipeline[-1].rule_probabilities(rows)
    likely = list(ads)
    for place, of_rules in zip(unknown, probabilities, strict=True):
        if of_rules.max() >= _LIKELY:
            likely[place] = replace(ads[place], rule=pipeline[-1].rules_[int(of_rules.argmax())])
    return likely


def _calibrate(
    ads: Sequence[LabelledAd], weight: npt.NDArray[np.float64], calibrate_on: Sequence[bool] | None
) -> Calibration:
    families = sorted({labelled.family for labelled in ads})
    if len(families) < _FOLDS:
        return Calibration(1.0, 0.0)
    fold_of = {family: number % _FOLDS for number, family in enumerate(families)}
    folds = np.array([fold_of[labelled.family] for labelled in ads])
    chosen = np.ones(len(ads), dtype=bool) if calibrate_on is None else np.asarray(calibrate_on)
    odds: list[npt.NDArray[np.float64]] = []
    violates: list[npt.NDArray[np.bool_]] = []
    for fold in range(_FOLDS):
        outside = np.flatnonzero(folds != fold).tolist()
        inside = np.flatnonzero((folds == fold) & chosen).tolist()
        if len({bool(ads[i].rule) for i in outside}) < 2:
            return Calibration(1.0, 0.0)  # so few ads of one kind that none can be left out
        if len(inside):
            pipeline = _fit([ads[i] for i in outside], weight[outside])
            odds.append(pipeline[-1].log_odds(pipeline[0].transform([ads[i].ad for i in inside])))
            violates.append(np.array([bool(ads[i].rule) for i in inside]))
    return _least_loss(np.concatenate(odds), np.concatenate(violates))


def _least_loss(odds: npt.NDArray[np.float64], violates: npt.NDArray[np.bool_]) -> Calibration:
    """Find the temperature and offset under which held-out labels are the least surprising."""

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        set_odds = (odds - parameters[1]) / np.clip(parameters[0], *_TEMPERATURES)
        return float(np.logaddexp(0, np.where(violates, -set_odds, set_odds)).mean())

    best = minimize(
        loss, x0=np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6}
    )
    return Calibration(float(np.clip(best.x[0], *_TEMPERATURES)), float(best.x[1]))

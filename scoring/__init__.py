"""Scores classified ads: what model.pkl is made of, and the one way to load it.

Knows neither Kafka nor PostgreSQL nor the settings: it takes ads and gives verdicts.
"""

from scoring.ad import Ad, Thresholds, Verdict
from scoring.explanation import Explanation, Feature, NotExplainable, Part
from scoring.loading import ModelRefused, load_model
from scoring.model import Model

__all__ = [
    "Ad",
    "Explanation",
    "Feature",
    "Model",
    "ModelRefused",
    "NotExplainable",
    "Part",
    "Thresholds",
    "Verdict",
    "load_model",
]

"""The first model: a seeded generator with written label rules, and a logistic regression on four features.

The rules read nothing of the text but its length, because the features hold nothing more. An ad collects
points:

=====================================  ======
the seller is not verified               +1.2
no picture / one or two / more    +1.5 / 0 / -0.8
description shorter than 40 characters   +0.9
description longer than 600 characters   -0.5
category 10 and 11 (services, jobs)      +0.6
=====================================  ======

and is a violation with probability ``sigmoid(points - 2.2)``: four numbers do not settle the matter, so
neither do the labels.
"""

import math
import random

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from scoring.ad import Ad
from scoring.four_features import FourFeatures

DEFAULT_ADS = 20_000
NAMED_CATEGORIES = 20


def points(ad: Ad) -> float:
    """Sum the written rules for one ad."""
    total = 0.0 if ad.is_verified_seller else 1.2
    total += 1.5 if ad.images_qty == 0 else 0.0 if ad.images_qty <= 2 else -0.8
    if len(ad.description) < 40:
        total += 0.9
    elif len(ad.description) > 600:
        total -= 0.5
    if ad.category in (10, 11):
        total += 0.6
    return total


def generate(n: int, seed: int) -> tuple[list[Ad], list[bool]]:
    """Make ``n`` ads (their text is filler of a drawn length) and their labels, fixed by the seed."""
    rng = random.Random(seed)
    ads, labels = [], []
    for item_id in range(1, n + 1):
        length = min(3000, int(rng.lognormvariate(5.0, 1.1)))
        ad = Ad(
            item_id=item_id,
            seller_id=item_id,
            is_verified_seller=rng.random() < 0.45,
            name="ad",
            description="x" * length,
            category=rng.randint(0, 100) if rng.random() < 0.1 else rng.randint(1, NAMED_CATEGORIES),
            images_qty=min(20, int(rng.expovariate(1 / 3))),
        )
        ads.append(ad)
        labels.append(rng.random() < 1 / (1 + math.exp(2.2 - points(ad))))
    return ads, labels


def fit(ads: list[Ad], labels: list[bool]) -> Pipeline:
    """Fit the four-feature pipeline on labelled ads."""
    pipeline = Pipeline(
        [("features", FourFeatures()), ("classifier", LogisticRegression(C=10.0, max_iter=1000))]
    )
    return pipeline.fit(ads, np.asarray(labels))

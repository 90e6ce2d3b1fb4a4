"""The models to beat: four features, a list of bad words, TF-IDF over words and over characters."""

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from scoring.ad import Ad
from scoring.four_features import FourFeatures
from training.generator import LabelledAd
from training.metrics import Probabilities

# What a moderator without tools would block: plain words, no context.
_BAD_WORDS = re.compile(
    r"whats?app|telegram|viber|ватсап|вотсап|телеграм|вайбер|инстаграм|instagram|@|http|www|\d{10,}|"
    r"предоплат|аванс|задаток|перевод|на карту|deposit|prepay|western union|gift card|"
    r"наркот|гашиш|марихуан|трамадол|сигарет|вейп|водк|коньяк|самогон|пистолет|патрон|диплом|паспорт|"
    r"drug|weed|cannabis|tramadol|vape|cigarette|vodka|whisk|pistol|ammo|diploma|passport|account|аккаунт|"
    r"реплик|копия|replica|copy|fake|интим|эскорт|секс|эротич|escort|sex|erotic|"
    r"славян|кавказ|без детей|no kids|no dss|only girls|купить|дешево|cheap|теги|tags",
    re.IGNORECASE,
)


def predict_all(
    train: Sequence[LabelledAd], weights: Sequence[float], ads: Sequence[Ad]
) -> dict[str, Probabilities]:
    """Fit each baseline on ``train``, weighted, and return its probabilities for ``ads``."""
    violates = np.array([bool(labelled.rule) for labelled in train])
    known = [labelled.ad for labelled in train]
    four = make_pipeline(FourFeatures(), LogisticRegression(C=10.0, max_iter=1000)).fit(
        known, violates, logisticregression__sample_weight=weights
    )
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 1), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    ).fit(_texts(known), violates, logisticregression__sample_weight=weights)
    both = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
        ),
        LogisticRegression(C=10.0, max_iter=1000),
    ).fit(_texts(known), violates, logisticregression__sample_weight=weights)
    listed = LogisticRegression().fit(_hits(known), violates, sample_weight=weights)
    return {
        "four features": four.predict_proba(ads)[:, 1],
        "word list": listed.predict_proba(_hits(ads))[:, 1],
        "TF-IDF over words": words.predict_proba(_texts(ads))[:, 1],
        "TF-IDF over words and characters": both.predict_proba(_texts(ads))[:, 1],
    }


def _texts(ads: Sequence[Ad]) -> list[str]:
    return [f"{ad.name}\n{ad.description}" for ad in ads]


def _hits(ads: Sequence[Ad]) -> np.ndarray:
    return np.array([[min(len(_BAD_WORDS.findall(text)), 5)] for text in _texts(ads)], dtype=float)

"""Turns ads into rows of columns: evidence, patterns, words that many ads share, and the second opinion."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin

from scoring.ad import Ad
from scoring.evidence import weigh
from scoring.evidence_columns import EVIDENCE
from scoring.knowledge import concept_of, is_counted, load_knowledge
from scoring.reading import Reader, Reading
from scoring.rules import FINE, TOPICAL_RULE
from scoring.topics import TOPICS, TopicModel
from scoring.wording import WordingModel

# Words weigh less than patterns, and patterns less than evidence: a column of few ads proves little.
_PATTERN_SCALE = 0.8
_WORD_SCALE = 0.25
_LEAST_GROUPS = 3
_FOLDS = 2
_DERIVED = (
    "reader_",
    "_pattern_place",
    "_pairs",
    "_names",
)  # computed from the knowledge and the rest when loaded
OPINION = "second_opinion"  # the name of the last column: the log-odds of `WordingModel`
_NEAR_MISS_WEIGHT = 2.0  # in the second opinion: words alone convict near misses first
_FOR = ("strong", "weak", "theme", "phone", "email", "link", "handle", "any", "foreign", "unverified")
_COMMON = ("form.", "seller.", "word: ")
_ALSO = {"wrong_category": ("topic.",), "spam_keywords": ("repetition.",)}


class AdFeatures(TransformerMixin, BaseEstimator):
    """Turns ads into sparse rows: `EVIDENCE`, patterns, known words and pairs of words, `OPINION`.

    Fitting learns the known words, the words of each category and the second opinion. ``y`` holds the rule
    that each ad breaks, `FINE` for none. Ads of a wrong category teach nothing about categories, and their
    words are those of an honest ad. A word is known when ``least_groups`` groups of ads use it.
    """

    reader_: Reader
    vocabulary_: dict[str, int]
    _names: list[str] | None

    def __init__(self, words: bool = True, least_groups: int = _LEAST_GROUPS) -> None:
        self.words = words
        self.least_groups = least_groups

    def fit(self, ads: Sequence[Ad], y: Sequence[str]) -> Self:
        """Learn the words, the categories and the second opinion."""
        self.fit_transform(ads, y)
        return self

    def fit_transform(
        self,
        ads: Sequence[Ad],
        y: Sequence[str],
        groups: Sequence[str] | None = None,
        weights: npt.NDArray[np.float64] | None = None,
        near_misses: Sequence[bool] | None = None,
    ) -> Any:
        """Fit, and transform the same ads with category probabilities learned from ads of other ``groups``.

        Probabilities that a category model gives to its own training ads are too good to learn from. Without
        groups every ad is its own. ``weights`` says how much each ad counts in the second opinion, in which
        ``near_misses`` count double.
        """
        self._start()
        readings = [self.reader_.read(ad) for ad in ads]
        groups = groups or [str(number) for number in range(len(ads))]
        self._learn_words(readings, groups)
        right = [
            reading.ad.category if rule != TOPICAL_RULE else 0
            for reading, rule in zip(readings, y, strict=True)
        ]
        self.topics_ = TopicModel(self.reader_.knowledge).fit(readings, right)
        self._learn_wording(readings, y, weights, near_misses)
        return self._rows(readings, self._held_out_topics(readings, right, groups))

    def transform(self, ads: Sequence[Ad]) -> Any:
        """Return a sparse array of shape ``(len(ads), number of features)``."""
        readings = [self.reader_.read(ad) for ad in ads]
        return self._rows(readings, self.topics_.probabilities(readings))

    def opinion_of_words(self, ad: Ad) -> dict[str, float]:
        """Return how much each word, pair and concept of an ad adds to its `OPINION`."""
        if self.wording_ is None:
            return {}
        names = self.reader_.knowledge.names
        return {
            concept_name(key, names): effect
            for key, effect in self.wording_.contributions(self.reader_.read(ad)).items()
        }

    def feature_names(self) -> list[str]:
        """Name every column."""
        if self._names is None:
            self._names = self._named()
        return self._names

    def _named(self) -> list[str]:
        patterns = [f"{p.rule}.{p.strength}: {p.text}" for p in self.reader_.knowledge.patterns]
        words = sorted(self.vocabulary_, key=self.vocabulary_.__getitem__)
        return [*EVIDENCE, *patterns, *(f"word: {word}" for word in words), OPINION]

    def columns_of(self, rule: str) -> npt.NDArray[np.bool_]:
        """Return which columns concern a rule: its own evidence and patterns, and those common to all."""
        prefixes = (f"{rule}.", *_COMMON, *_ALSO.get(rule, ()))
        return np.array([name.startswith(prefixes) for name in self.feature_names()])

    def signs(self) -> npt.NDArray[np.int8]:
        """Return which sign the weight of each column may have: 1, -1, or 0 for either."""
        kinds = [name.partition(".")[2] for name in self.feature_names()]
        return np.array(
            [1 if kind.startswith(_FOR) else -1 if kind.startswith("counter") else 0 for kind in kinds]
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if hasattr(self, "topics_"):
            self._start()
            self._pairs = _by_first(self.vocabulary_)

    def _start(self) -> None:
        knowledge = load_knowledge()
        self._names = None
        self.reader_ = Reader(knowledge)
        self._pattern_place = {id(p): len(EVIDENCE) + number for number, p in enumerate(knowledge.patterns)}

    def _learn_words(self, readings: list[Reading], groups: Sequence[str]) -> None:
        """Keep the words of several groups: a word of one template alone tells its author, not its rule."""
        seen: dict[str, set[str]] = {}
        if self.words:
            for reading, group in zip(readings, groups, strict=True):
                for stem in _stems_and_pairs(reading):
                    seen.setdefault(stem, set()).add(group)
        kept = sorted(stem for stem, where in seen.items() if len(where) >= self.least_groups)
        start = len(EVIDENCE) + len(self.reader_.knowledge.patterns)
        self.vocabulary_ = {stem: start + number for number, stem in enumerate(kept)}
        self._pairs = _by_first(self.vocabulary_)

    def _learn_wording(
        self,
        readings: list[Reading],
        y: Sequence[str],
        weights: npt.NDArray[np.float64] | None,
        near_misses: Sequence[bool] | None,
    ) -> None:
        violates = [rule not in (FINE, TOPICAL_RULE) for rule in y]
        self.wording_ = None
        if len(set(violates)) == 2:
            weight = np.ones(len(readings)) if weights is None else weights
            near = np.zeros(len(readings), dtype=bool) if near_misses is None else np.asarray(near_misses)
            weight = weight * np.where(near, _NEAR_MISS_WEIGHT, 1.0)
            self.wording_ = WordingModel().fit(readings, violates, weight)

    def _held_out_topics(
        self, readings: list[Reading], right: list[int], groups: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        order = {group: number % _FOLDS for number, group in enumerate(sorted(set(groups)))}
        folds = np.array([order[group] for group in groups])
        probabilities = np.full((len(readings), len(TOPICS)), 1 / len(TOPICS))
        for fold in range(_FOLDS):
            inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if len(inside) and len(outside):
                model = TopicModel(self.reader_.knowledge)
                model.fit([readings[i] for i in outside], [right[i] for i in outside])
                probabilities[inside] = model.probabilities([readings[i] for i in inside])
        return probabilities

    def _rows(self, readings: list[Reading], topics: npt.NDArray[np.float64]) -> Any:
        columns: list[int] = []
        values: list[float] = []
        starts = [0]
        query_bit = 1 << self.reader_.knowledge.number("QUERY")
        width = len(EVIDENCE) + len(self.reader_.knowledge.patterns) + len(self.vocabulary_) + 1
        opinions = self.wording_.log_odds(readings) if self.wording_ else [0.0] * len(readings)
        for reading, probabilities, opinion in zip(readings, topics, opinions, strict=True):
            places, numbers = weigh(reading, self.topics_, probabilities, query_bit)
            columns += places
            values += numbers
            columns += [self._pattern_place[id(pattern)] for pattern in reading.hits]
            values += [_PATTERN_SCALE] * len(reading.hits)
            words = self._words_of(reading)
            columns += words
            values += [_WORD_SCALE] * len(words)
            columns.append(width - 1)
            values.append(opinion)
            starts.append(len(columns))
        parts = np.asarray(values), np.asarray(columns, dtype=np.int32), np.asarray(starts, dtype=np.int32)
        return sparse.csr_matrix(parts, shape=(len(readings), width))

    def _words_of(self, reading: Reading) -> list[int]:
        """List the columns of the known words and pairs of words."""
        stems = _stems(reading)
        known = self.vocabulary_
        places = {known[stem] for stem in stems if stem in known}
        for left, right in pairwise(stems):
            following = self._pairs.get(left)
            if following and right in following:
                places.add(following[right])
        return sorted(places)


def concept_name(key: str, names: Sequence[str]) -> str:
    """Return a readable name for a key of `WordingModel`: concepts are private-use characters in it."""
    if ": " in key:
        return key
    named = (
        character
        if character == " "
        else names[concept_of(character)] + ("" if is_counted(character) else "!")
        for character in key
    )
    return "concepts: " + "+".join(named).replace("+ +", " .. ")


def _stems(reading: Reading) -> list[str]:
    return ["#" if word.is_number else word.stem for word in reading.words]


def _stems_and_pairs(reading: Reading) -> set[str]:
    stems = _stems(reading)
    return {*stems, *map(" ".join, pairwise(stems))}


def _by_first(vocabulary: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return the pairs of words by their first word: `pairs[left][right]` needs no joined text."""
    pairs: dict[str, dict[str, int]] = {}
    for words, place in vocabulary.items():
        left, is_pair, right = words.partition(" ")
        if is_pair:
            pairs.setdefault(left, {})[right] = place
    return pairs

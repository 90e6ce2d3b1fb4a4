"""Classifies a text by its words into categories: a linear model that remembers the vector of each word."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from scoring.knowledge import Knowledge
from scoring.reading import Reading
from scoring.words import Word

TOPICS = tuple(range(1, 20))  # 20 is "other": nothing belongs there by its words
# Categories whose goods are no breach in each other: training/policy.md has a reason for each pair.
_NEIGHBOURS = (
    "1-2 2-6 2-14 2-15 2-18 3-4 3-7 3-19 4-7 4-19 5-6 5-7 6-9 6-18 7-8 7-19 8-19 10-11 10-15 13-14 13-19 "
    "14-18"
)
NEIGHBOURS = frozenset(frozenset(map(int, pair.split("-"))) for pair in _NEIGHBOURS.split())
_PREPOSITIONS = frozenset(
    "for with in of from by to and or on at without under".split()  # noqa: SIM905 - words read better
)
TITLE_WEIGHT = 2.0
_MEMO_WORDS = 60_000
_BEGINNING = 5
_LEXICON = tuple(f"CAT{topic}" for topic in TOPICS)


def are_neighbours(one: int, other: int) -> bool:
    """Return whether goods of one category are no breach in the other."""
    return one == other or one not in TOPICS or other not in TOPICS or frozenset((one, other)) in NEIGHBOURS


class TopicModel:
    """Gives each reading a probability of each of `TOPICS`, and counts the words its lexicon puts there."""

    def __init__(self, knowledge: Knowledge, strength: float = 0.5, least_seen: int = 2) -> None:
        self.strength = strength
        self.least_seen = least_seen
        self._topic_bits = [1 << knowledge.number(name) for name in _LEXICON]
        self._any_topic = sum(self._topic_bits)
        topic_of = {knowledge.number(name): topic for topic, name in enumerate(_LEXICON)}
        self._words: list[tuple[str, int]] = [
            (entry, topic_of[concept])
            for table in (knowledge.exact, knowledge.prefix)
            for entry, concepts in table.items()
            for concept in concepts
            if concept in topic_of
        ]
        self._memo: dict[tuple[str, int], npt.NDArray[np.float64]] = {}
        self._topics_of: dict[int, tuple[int, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memo": {}, "_topics_of": {}}

    def fit(self, readings: Sequence[Reading], categories: Sequence[int]) -> "TopicModel":
        """Learn from readings whose category is right; those outside `TOPICS` are left out."""
        chosen = [
            (reading, category)
            for reading, category in zip(readings, categories, strict=True)
            if category in TOPICS
        ]
        entries = [_spellings(entry) for entry, _ in self._words]
        documents = [
            [(self._features(word, mask), weight) for word, mask, weight in _weighted_words(reading)]
            for reading, _ in chosen
        ]
        seen = Counter(
            feature for words in documents for feature in {f for features, _ in words for f in features}
        )
        seen.update(feature for features in entries for feature in set(features))
        kept = sorted(feature for feature, count in seen.items() if count >= self.least_seen)
        self.vocabulary_ = {feature: row for row, feature in enumerate(kept)}
        rows = self._matrix([*documents, *([(features, 1.0)] for features in entries)])
        targets = [category - 1 for _, category in chosen] + [topic for _, topic in self._words]
        classifier = LogisticRegression(C=self.strength, max_iter=60, tol=1e-3)
        classifier.fit(rows, targets)
        self.weights_ = np.zeros((len(self.vocabulary_), len(TOPICS)), dtype=np.float32)
        self.bias_ = np.full(len(TOPICS), -8.0, dtype=np.float32)
        self.weights_[:, classifier.classes_] = classifier.coef_.T
        self.bias_[classifier.classes_] = classifier.intercept_
        self._memo = {}
        return self

    def probabilities(self, readings: Sequence[Reading]) -> npt.NDArray[np.float64]:
        """Return an array of shape ``(len(readings), len(TOPICS))``, each row summing to 1."""
        vectors: list[npt.NDArray[np.float64]] = []
        scales: list[float] = []  # of each word: its weight, with the norm of its reading's weights
        words_of: list[int] = []
        for number, reading in enumerate(readings):
            words = _weighted_words(reading)
            norm = _norm([weight for _, _, weight in words])
            vectors += [self._vector(word, mask) for word, mask, _ in words]
            scales += [weight / norm for _, _, weight in words]
            words_of += [number] * len(words)
        scores = np.tile(self.bias_.astype(np.float64), (len(readings), 1))
        if vectors:
            np.add.at(scores, words_of, np.array(vectors) * np.array(scales)[:, None])
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        return scores / scores.sum(axis=1, keepdims=True)

    def lexicon_topics(self, masks: Iterable[int]) -> list[tuple[int, ...]]:
        """Return by the bits of each word's concepts the places in `TOPICS` where the lexicon puts it."""
        return [self._lexicon_topics(mask) if mask & self._any_topic else () for mask in masks]

    def _lexicon_topics(self, mask: int) -> tuple[int, ...]:
        topics = self._topics_of.get(mask)
        if topics is None:
            if len(self._topics_of) >= _MEMO_WORDS:
                self._topics_of.clear()
            topics = tuple(topic for topic, bit in enumerate(self._topic_bits) if mask & bit)
            self._topics_of[mask] = topics
        return topics

    def _vector(self, word: Word, mask: int) -> npt.NDArray[np.float64]:
        vector = self._memo.get((word.text, mask))
        if vector is None:
            if len(self._memo) >= _MEMO_WORDS:
                self._memo.clear()
            features = self._features(word, mask)
            rows = [self.vocabulary_[feature] for feature in features if feature in self.vocabulary_]
            vector = self.weights_[rows].sum(axis=0, dtype=np.float64) / math.sqrt(max(len(features), 1))
            self._memo[word.text, mask] = vector
        return vector

    def _features(self, word: Word, mask: int) -> list[str]:
        lexicon = [f"#{topic}" for topic in self._lexicon_topics(mask)]
        return lexicon + _spellings(word.text)

    def _matrix(self, documents: Sequence[Sequence[tuple[list[str], float]]]) -> Any:
        columns: list[int] = []
        values: list[float] = []
        starts = [0]
        for words in documents:
            norm = _norm([weight for _, weight in words])
            for features, weight in words:
                known = [self.vocabulary_[feature] for feature in features if feature in self.vocabulary_]
                columns += known
                values += [weight / (norm * len(features) ** 0.5)] * len(known)
            starts.append(len(columns))
        matrix = sparse.csr_matrix((values, columns, starts), shape=(len(documents), len(self.vocabulary_)))
        matrix.sum_duplicates()
        return matrix


def head_topics(reading: Reading, topics_of_words: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the places in `TOPICS` of the thing that the name names: `car seat covers`, `чехол для дивана`.

    An English name ends in it, up to its first preposition; a Russian one begins with it.
    """
    known: list[tuple[int, ...]] = []
    english = False
    for word, topics in zip(reading.words[: reading.title_words], topics_of_words, strict=False):
        if known and word.text in _PREPOSITIONS:
            break
        if topics:
            known.append(topics)
            english = word.text[0].isascii()
    if not known:
        return ()
    return known[-1] if english else known[0]


def _weighted_words(reading: Reading) -> list[tuple[Word, int, float]]:
    return [
        (word, mask, TITLE_WEIGHT if place < reading.title_words else 1.0)
        for place, (word, mask) in enumerate(zip(reading.words, reading.masks, strict=True))
        if word.is_topical
    ]


def _norm(weights: Sequence[float]) -> float:
    return math.sqrt(sum([weight * weight for weight in weights])) or 1.0


def _spellings(text: str) -> list[str]:
    """Return the features of a word: itself and its beginning. Runs of letters added nothing."""
    return ["=" + text, "~" + text[:_BEGINNING]]

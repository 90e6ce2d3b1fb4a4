"""The second opinion: a logistic regression over words, parts of words and pairs of concepts.

The evidence of `scoring.evidence` counts only what somebody wrote down. This model learns from every word,
so it also has an opinion of an ad whose words nobody wrote down. It is linear and its columns are hashed:
the score of a word is a sum of weights that is computed once and remembered.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from scoring.knowledge import COMMA, END
from scoring.reading import Reading

WORD_BUCKETS = 1 << 18
CONCEPT_BUCKETS = 1 << 16
SHORTEST_PART, LONGEST_PART = 2, 5  # characters of the parts of a word, with a blank at either end
_LONGEST_WORD = 20  # characters that are read of a word
_PAIR_LETTERS = 7  # of each word of a pair: endings differ
_WINDOW = 8  # words of a sentence over which two concepts are a pair
_LEAST_ADS = 3  # a column that fewer training ads have is left out
_CONCEPTS_SHARE = 0.7  # length of the concepts' part of a row, where the words' part has length 1
_MEMO_ENTRIES = 60_000  # about 10 MB for each memo; a full memo is emptied and fills again
_LONG_NUMBER = 4  # digits; a longer number is only its length
_LEAST_WORDS = 12  # of fewer words the share that repeats means nothing
_LONG_RUN = 10  # words
_SIGN = re.compile(r"[.,] ")
_TOKEN = re.compile(r"[^\W_]+|[.!?;\n]+|[@/#+]")
_SENTENCE_ENDS = ".!?;\n"


class WordingModel:
    """Gives a reading the log-odds that its words break a rule, whichever rule.

    ``strength`` is the inverse of the regularisation.
    """

    def __init__(self, strength: float = 10.0) -> None:
        self.strength = strength
        self.bias_ = 0.0
        self._start()

    def _start(self) -> None:
        self._words = _Memo(lambda word: _sum(self.words_, _columns(_parts(word), WORD_BUCKETS)))
        self._pairs = _Memo(lambda pair: _sum(self.words_, _columns([pair], WORD_BUCKETS)))
        self._concepts = _Memo(lambda key: _sum(self.concepts_, _columns(_letters(key), CONCEPT_BUCKETS)))

    def __getstate__(self) -> dict[str, Any]:
        memos = ("_words", "_pairs", "_concepts")
        return {name: value for name, value in self.__dict__.items() if name not in memos}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def fit(
        self, readings: Sequence[Reading], violates: Sequence[bool], weights: npt.NDArray[np.float64]
    ) -> Self:
        """Learn from readings, whether each breaks a rule by its words, and how much each counts."""
        found_words = [_word_keys(reading) for reading in readings]
        parts = {word: _columns(_parts(word), WORD_BUCKETS) for found, _ in found_words for word in found}
        words = _matrix(
            [
                [*(parts[word] for word in found), _columns(pairs, WORD_BUCKETS)]
                for found, pairs in found_words
            ],
            [_norm(len(found)) for found, _ in found_words],
            WORD_BUCKETS,
        )
        keys = [_concept_keys(reading) for reading in readings]
        concepts = _matrix(
            [[_columns(_letters(key), CONCEPT_BUCKETS) for key in found] for found in keys],
            [_norm(len(found)) for found in keys],
            CONCEPT_BUCKETS,
        )
        words, of_words, word_scale = _weighted(words)
        concepts, of_concepts, concept_scale = _weighted(concepts)
        rows = sparse.hstack([words, concepts * _CONCEPTS_SHARE]).tocsr()
        regression = LogisticRegression(C=self.strength, max_iter=300, tol=1e-3)
        regression.fit(rows, np.asarray(violates), sample_weight=weights)
        found = regression.coef_[0]
        self.words_ = np.zeros(WORD_BUCKETS, dtype=np.float32)
        self.concepts_ = np.zeros(CONCEPT_BUCKETS, dtype=np.float32)
        self.words_[of_words] = found[: len(of_words)] * word_scale
        self.concepts_[of_concepts] = found[len(of_words) :] * concept_scale * _CONCEPTS_SHARE
        self.bias_ = float(regression.intercept_[0])
        self._start()
        return self

    def log_odds(self, readings: Sequence[Reading]) -> list[float]:
        """Return the log-odds of each reading."""
        return [self._log_odds(reading) for reading in readings]

    def _log_odds(self, reading: Reading) -> float:
        found, pairs = _word_keys(reading)
        words, pair, concept = self._words, self._pairs, self._concepts
        of_words = sum([words[word] for word in found]) + sum([pair[key] for key in pairs])
        keys = _concept_keys(reading)
        of_concepts = sum([concept[key] for key in keys])
        return self.bias_ + of_words / _norm(len(found)) + of_concepts / _norm(len(keys))

    def contributions(self, reading: Reading) -> dict[str, float]:
        """Return how much each word, pair of words and pair of concepts added to the log-odds.

        The values and the bias add up to the log-odds.
        """
        found, pairs = _word_keys(reading)
        keys = _concept_keys(reading)
        of_words = {f"word: {word}": self._words[word] / _norm(len(found)) for word in found}
        of_pairs = {f"words: {pair}": self._pairs[pair] / _norm(len(found)) for pair in pairs}
        of_concepts = {key: self._concepts[key] / _norm(len(keys)) for key in keys}
        return of_words | of_pairs | of_concepts


class _Memo(dict[str, float]):
    """Weights by key, each computed when it is first needed. Safe in several threads."""

    def __init__(self, compute: Callable[[str], float]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, key: str) -> float:
        if len(self) >= _MEMO_ENTRIES:
            self.clear()
        value = self[key] = self._compute(key)
        return value


def _word_keys(reading: Reading) -> tuple[list[str], list[str]]:
    """Return the different words of a text, and its different pairs of words within a sentence."""
    words: dict[str, None] = {}
    pairs: dict[str, None] = {}
    last = ""
    for token in _TOKEN.findall(reading.text.lower()):
        if token[0] in _SENTENCE_ENDS:
            last = ""
            continue
        if token.isdigit() and len(token) > _LONG_NUMBER:
            token = "#" * min(len(token), 12)
        words[token] = None
        short = token[:_PAIR_LETTERS]
        if last:
            pairs[f"{last} {short}"] = None
        last = short
    return list(words), list(pairs)


def _concept_keys(reading: Reading) -> list[str]:
    """Return the different concepts of words, their pairs within a sentence, kinds of contact and repetition.

    The key of a word is the letters of its concepts. A cancelled concept is another one than the concept
    itself. A pair has an order.
    """
    keys: dict[str, None] = {}
    recent: list[tuple[int, str]] = []  # the concepts of the last words of the sentence
    for place, piece in enumerate(reading.concepts.replace(f"{COMMA} ", "").split(" ")):
        if piece == END:
            recent = []
        elif piece:
            keys[piece] = None
            recent = [item for item in recent if place - item[0] <= _WINDOW]
            for _, earlier in recent:
                keys[f"{earlier} {piece}"] = None
            recent.append((place, piece))
    keys.update(dict.fromkeys([*_contacts(reading), *_repetition(reading)]))
    return list(keys)


def _repetition(reading: Reading) -> list[str]:
    """Return how often words are said again, and how long the longest run of words without a sign is."""
    total = len(reading.words)
    if total < _LEAST_WORDS:
        return []
    share = len({word.stem for word in reading.words}) / total
    run = max(stretch.count(" ") for stretch in _SIGN.split(reading.concepts))
    found = [f"repetition: {share:.1f} of the words are different"]
    if run >= _LONG_RUN:
        found.append(f"repetition: {min(run // _LONG_RUN, 4) * _LONG_RUN} words without a sign")
    return found


def _contacts(reading: Reading) -> list[str]:
    phones, links = reading.phones, reading.links
    counts = {
        "phone": phones.sure,
        "perhaps a phone": phones.perhaps,
        "serial number": phones.serial,
        "card": phones.card,
        "email": links.email,
        "link": links.link,
        "shop": links.shop,
        "handle": links.handle,
        "spelled": links.spelled,
        "disguised": phones.disguised,
    }
    return [f"contact: {name}" for name, count in counts.items() if count]


def _parts(word: str) -> list[str]:
    """Return the word and its runs of characters."""
    whole = f" {word[:_LONGEST_WORD]} "
    runs = {
        whole[start : start + length]: None
        for length in range(SHORTEST_PART, LONGEST_PART + 1)
        for start in range(len(whole) - length + 1)
    }
    return [f"={word}", *runs]


def _letters(key: str) -> list[str]:
    """Return the concepts or pairs of concepts that a key of one or two words stands for."""
    if ":" in key:
        return [key]
    first, is_pair, second = key.partition(" ")
    return [one + other for one in first for other in second] if is_pair else list(first)


def _columns(keys: Iterable[str], buckets: int) -> list[int]:
    # A lone half of a surrogate pair cannot be encoded otherwise.
    return [crc32(key.encode("utf-8", "surrogatepass")) % buckets for key in keys]


def _sum(weights: npt.NDArray[np.float32], columns: list[int]) -> float:
    return float(weights[columns].sum(dtype=np.float64))


def _norm(count: int) -> float:
    """Return the number by which a text's sums are divided, lest length alone convict."""
    return float(max(count, 1)) ** 0.5


def _matrix(rows: Sequence[Sequence[list[int]]], norms: Sequence[float], width: int) -> Any:
    columns: list[int] = []
    values: list[float] = []
    starts = [0]
    for row, norm in zip(rows, norms, strict=True):
        for part in row:
            columns += part
        values += [1 / norm] * (len(columns) - len(values))
        starts.append(len(columns))
    parts = np.asarray(values), np.asarray(columns, dtype=np.int32), np.asarray(starts)
    matrix = sparse.csr_matrix(parts, shape=(len(rows), width))
    matrix.sum_duplicates()
    return matrix


def _weighted(matrix: Any) -> tuple[Any, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the frequent columns, rare ones weighing more, their numbers and the factor of each."""
    seen = np.bincount(matrix.indices, minlength=matrix.shape[1])
    kept = np.flatnonzero(seen >= _LEAST_ADS)
    factors = np.log((1 + matrix.shape[0]) / (1 + seen[kept])) + 1
    chosen = matrix[:, kept].multiply(factors).tocsr()
    length = float(np.sqrt(chosen.power(2).sum(axis=1).mean())) or 1.0
    return chosen / length, kept, factors / length

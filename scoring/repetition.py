"""Measures repetition and heaps of words, which distinguish text for search from text for readers."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

from scoring.words import FUNCTION_WORDS, Word

_NAMES = (
    "unique_share",
    "top_share",
    "repeated_pairs",
    "top_pair",
    "repeated_sentences",
    "longest_run",
    "function_share",
    "query_share",
    "hashtags",
    "twins",
    "commas_share",
    "tag_heading",
)
REPETITION_FEATURES = tuple(f"repetition.{name}" for name in _NAMES)

_SENTENCE = re.compile(r"[.!?;\n]+")
_SIGNS = re.compile(r"[^\w\s]+|_+|\n")
_TAG_HEADING = re.compile(
    r"\b(?:tags?|keywords?|search|search terms|теги|тэги|ключи|поиск|для поиска|ключевые|ключевые слова)\s?:"
)
_LEAST_WORDS = 8  # shares of fewer words mean nothing


def measure(lower: str, words: list[Word], query_bit: int) -> list[float]:
    """Return the numbers of `REPETITION_FEATURES` for a text in lower case and its words, each about 0..1.

    What stands after a number (of roubles, of pieces) is not counted: a price list repeats it on every line.
    """
    total = len(words)
    content = []
    after_number = False
    for word in words:
        if word.is_content and not after_number:
            content.append(word)
        after_number = word.is_number
    hashtags = min(lower.count("#") / 6, 2.0)
    if total < _LEAST_WORDS or not content:
        return [1.0, *[0.0] * 7, hashtags, 0.0, 0.0, _tagged(lower)]
    stems = [word.stem for word in content]
    again, top = _repeats(stems)
    pairs_again, top_pair = _repeats(list(pairwise(stems)))
    sentences = [sentence for part in _SENTENCE.split(lower) if len(sentence := part.strip()) >= 6]
    queries = sum([1 for word in words if word.mask & query_bit])
    return [
        (len(content) - again) / len(content),
        top / len(content) if top > 2 else 0.0,
        min(pairs_again / len(content), 1.0),
        min(5 * max(top_pair - 2, 0) / len(content), 2.0),
        min(_repeats(sentences)[0] / 3, 2.0),
        _longest_run(lower) / 20,
        (total - len(content)) / total,
        queries / total if queries >= 4 else 0.0,
        hashtags,
        min(_twins(content) / 3, 2.0),
        min(lower.count(",") / total, 1.0),
        _tagged(lower),
    ]


def _repeats(items: Sequence[Hashable]) -> tuple[int, int]:
    """Return how many items repeat an earlier one, and the count of the most frequent one."""
    again = len(items) - len(set(items))
    return again, max(Counter(items).values()) if again else min(len(items), 1)


def _longest_run(lower: str) -> float:
    """Return the length of the longest stretch of words without a sign or a function word."""
    longest = 0
    for stretch in _SIGNS.split(lower):
        tokens = stretch.split()
        if len(tokens) <= longest:
            continue
        current = 0
        for token in tokens:
            current = 0 if token in FUNCTION_WORDS else current + 1
            longest = max(longest, current)
    return min(longest, 40)


def _tagged(lower: str) -> float:
    return 1.0 if ":" in lower and _TAG_HEADING.search(lower) else 0.0


def _twins(content: list[Word]) -> int:
    """Count neighbours that are one name in two spellings, `айфон iphone`."""
    return sum(
        [
            1
            for left, right in pairwise(content)
            if left.mask & right.mask
            and left.text != right.text
            and left.text[0].isascii() != right.text[0].isascii()
        ]
    )

"""How a text repeats and heaps words up: what tells text made for search from text made for readers."""

import re
from collections import Counter
from itertools import pairwise

from scoring.words import Word

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

# Words that hold sentences together: a heap of keywords has hardly any.
_FUNCTION_WORDS = (
    "и в во не на я с со что как а то все она так его но да ты к у же вы за бы по только ее мне было "
    "вот от меня еще нет о из ему когда даже ну ли если или ни быть был до вас уже вам при для под без "
    "есть это этот эта эти чтобы можно через после также там тут здесь очень был была были будет "
    "который которая которые мы наш нас им их the a an and or of in on at to for with from by is are "
    "was were be been it this that these those i you we they my your our have has had do does did not "
    "no can will would if but so as than very just all some any there here it's i'm comes used also "
    "only one each obo sold фото шт руб размер "
)
_FUNCTION = frozenset(_FUNCTION_WORDS.split())
_SENTENCE = re.compile(r"[.!?;\n]+")
_SIGNS = re.compile(r"[^\w\s]+|_+|\n")
_TAG_HEADING = re.compile(
    r"\b(?:tags?|keywords?|search|search terms|теги|тэги|ключи|поиск|для поиска|ключевые|ключевые слова)\s?:"
)
_LEAST_WORDS = 8  # shares of fewer words say nothing


def measure(lower: str, words: list[Word], query_bit: int) -> list[float]:
    """Return the numbers of `REPETITION_FEATURES` for a text in lower case and its words, each about 0..1.

    What stands after a number (of roubles, of pieces) is not counted: a price list repeats it on every line.
    """
    total = len(words)
    content = [
        word
        for before, word in zip((None, *words), words, strict=False)
        if word.text not in _FUNCTION and not word.is_number and not (before and before.is_number)
    ]
    hashtags = min(lower.count("#") / 6, 2.0)
    if total < _LEAST_WORDS or not content:
        return [1.0, *[0.0] * 7, hashtags, 0.0, 0.0, _tagged(lower)]
    stems = [word.stem for word in content]
    counts = Counter(stems)
    top = max(counts.values())
    pairs = Counter(pairwise(stems))
    sentences = Counter(part.strip() for part in _SENTENCE.split(lower) if len(part.strip()) >= 6)
    queries = sum([1 for word in words if word.mask & query_bit])
    return [
        len(counts) / len(content),
        top / len(content) if top > 2 else 0.0,
        min(sum([count - 1 for count in pairs.values()]) / len(content), 1.0),
        min(5 * max(max(pairs.values(), default=0) - 2, 0) / len(content), 2.0),
        min(sum([count - 1 for count in sentences.values()]) / 3, 2.0),
        _longest_run(lower) / 20,
        (total - len(content)) / total,
        queries / total if queries >= 4 else 0.0,
        hashtags,
        min(_twins(content) / 3, 2.0),
        min(lower.count(",") / total, 1.0),
        _tagged(lower),
    ]


def _longest_run(lower: str) -> float:
    """Return the length of the longest stretch of words without a sign or a function word."""
    longest = 0
    for stretch in _SIGNS.split(lower):
        tokens = stretch.split()
        if len(tokens) <= longest:
            continue
        current = 0
        for token in tokens:
            current = 0 if token in _FUNCTION else current + 1
            longest = max(longest, current)
    return min(longest, 40)


def _tagged(lower: str) -> float:
    return 1.0 if _TAG_HEADING.search(lower) else 0.0


def _twins(content: list[Word]) -> int:
    """Count neighbours that are one name in two spellings, `айфон iphone`."""
    return sum(
        1
        for left, right in pairwise(content)
        if left.mask & right.mask
        and left.text != right.text
        and left.text[0].isascii() != right.text[0].isascii()
    )

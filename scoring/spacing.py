"""Joins letters that are spread out, `v i a g r a`, and separates the words among them."""

import re

from scoring.knowledge import Knowledge
from scoring.normalise import fold_scripts

_SPREAD = re.compile(r"(?<![^\W_])(?:[^\W\d_][ .\-_*•|/\\,]{1,3}){3,}[^\W\d_](?![^\W_])")
# A part of every spread word. A rare character first lets the search skip plain text.
_SPREAD_WITHIN = re.compile(r"[ .\-_*•|/\\,][^\W\d_][ .\-_*•|/\\,]{1,3}[^\W\d_][ .\-_*•|/\\,]")
_WIDE = re.compile(r"\s{2,}")
_NOT_LETTERS = re.compile(r"[\W_]+")
_ONE_WORD = 8  # letters; more may be several words
_SHORTEST_KNOWN, _LONGEST_KNOWN = 3, 16


class Gatherer:
    """Finds letters that stand one by one. Several threads may use a gatherer at once."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._known = (knowledge.exact, knowledge.prefix)

    def gather(self, lower: str) -> tuple[str, int]:
        """Return the lower-case text with its spread words joined, and their count."""
        if not _SPREAD_WITHIN.search(lower):
            return lower, 0
        return _SPREAD.subn(self._gathered, lower)

    def _gathered(self, found: re.Match[str]) -> str:
        spread = found[0]
        # A wider gap between letters one blank apart ends a word; otherwise the lexicon separates the words.
        parts = _WIDE.split(spread) if _WIDE.search(spread) and re.search(r"\S\s\S", spread) else [spread]
        return " ".join(self._apart(fold_scripts(_NOT_LETTERS.sub("", part))) for part in parts)

    def _apart(self, letters: str) -> str:
        """Cut a run of letters where a known word or stem stands, the longest first."""
        if len(letters) <= _ONE_WORD or any(letters in known for known in self._known):
            return letters
        pieces = [""]
        start = 0
        while start < len(letters):
            word = self._longest_known(letters, start)
            if word:
                pieces += [word, ""]
                start += len(word)
            else:
                pieces[-1] += letters[start]
                start += 1
        return " ".join(self._with_endings(pieces)) if len(pieces) > 1 else letters

    def _longest_known(self, letters: str, start: int) -> str:
        for length in range(min(_LONGEST_KNOWN, len(letters) - start), _SHORTEST_KNOWN - 1, -1):
            word = letters[start : start + length]
            if any(word in known for known in self._known):
                return word
        return ""

    def _with_endings(self, pieces: list[str]) -> list[str]:
        """Give a stem its ending back: the unknown letters after it, where there are few."""
        words: list[str] = []
        for known, rest in zip(pieces[1::2], pieces[2::2], strict=True):
            if len(rest) <= _SHORTEST_KNOWN and known in self._known[1]:
                words.append(known + rest)
            else:
                words += [word for word in (known, rest) if word]
        return [pieces[0], *words] if pieces[0] else words

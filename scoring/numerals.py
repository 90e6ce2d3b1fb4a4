"""Turns Russian and English numbers in words into digits."""

import re

_UNITS = (
    ("ноль нуль нолик zero nought", 0),
    ("один одна раз единица one", 1),
    ("два две двойка two", 2),
    ("три тройка three", 3),
    ("четыре четверка four", 4),
    ("пять пятерка five", 5),
    ("шесть шестерка six", 6),
    ("семь семерка seven", 7),
    ("восемь восьмерка восим eight", 8),
    ("девять девятка nine", 9),
)
_TEENS = (
    "десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать шестнадцать семнадцать восемнадцать "
    "девятнадцать",
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
)
_TENS = (
    "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто",
    "twenty thirty forty fifty sixty seventy eighty ninety",
)
_HUNDREDS = "сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот"
_REPEATS = {"double": 2, "двойной": 2, "triple": 3, "тройной": 3}
_MARKS = {"плюс": "+", "plus": "+", "тире": "-", "дефис": "-", "dash": "-", "hyphen": "-"}
_ALONE_IN_NUMBERS = {"oh": 0, "o": 0, "о": 0}  # zero when it stands among digits, else an ordinary word

_VALUES = (
    {word: value for words, value in _UNITS for word in words.split()}
    | {word: 10 + i for words in _TEENS for i, word in enumerate(words.split())}
    | {word: 10 * (2 + i) for words in _TENS for i, word in enumerate(words.split())}
    | {word: 100 * (1 + i) for i, word in enumerate(_HUNDREDS.split())}
)
_ZEROS = {"ноля", "нуля", "нулей", "ноликов", "нолика"}  # "два нуля" is 00
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w]+|_+")
_ANY = "|".join(sorted(_VALUES, key=len, reverse=True))
_GLUED = re.compile(f"(?:{_ANY}){{2,}}")
_PART = re.compile(_ANY)
# A number in words next to one in digits: `07700 nine hundred 461`.
_BESIDE_DIGITS = re.compile(
    rf"\d[\s,.\-]{{1,3}}(?:{_ANY})\b|\b(?:{_ANY})(?:\s(?:hundred|сот))?[\s,.\-]{{1,3}}\d"
)
_BLANKS = re.compile(r"  +")
_LONGEST_NUMERAL = 60


def numerals_in(word: str) -> int:
    """Count the numerals in a lower-case word, also several written together."""
    if word in _VALUES or word in _ZEROS:
        return 1
    if 6 <= len(word) <= _LONGEST_NUMERAL and _GLUED.fullmatch(word):
        return len(_PART.findall(word))
    return 0


def stands_beside_digits(text: str) -> bool:
    """Return whether a lower-case text has a number in words next to one in digits."""
    return _BESIDE_DIGITS.search(text) is not None


def spell_out(text: str) -> str:
    """Replace number words of a lower-case text by digits; ``девятьсот шестнадцать`` gives ``916``."""
    pieces: list[str] = []
    pending: list[int] = []
    repeat = 1
    for token in _pieces(text):
        value = _VALUES.get(
            token, _ALONE_IN_NUMBERS.get(token) if pending or _ends_in_digit(pieces) else None
        )
        if value is not None:
            pending.extend([value] * repeat)
            repeat = 1
        elif token in _ZEROS and pending:
            pending[-1:] = [0] * min(pending[-1], 5)
        elif token in _REPEATS:
            repeat = _REPEATS[token]
        elif token == "hundred" and pending:
            pieces += _written([*pending[:-1], pending[-1] * 100])
            pending = []
        elif token in _MARKS:
            pieces += [*_written(pending), _MARKS[token]]
            pending = []
        elif not token.strip(" \t,.-–—()\n") and pending:
            if "\n" in token or "." in token:
                pieces += [*_written(pending), token]
                pending = []
        else:
            pieces += [*_written(pending), token]
            pending, repeat = [], 1
    return _BLANKS.sub(" ", "".join([*pieces, *_written(pending)]))


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for token in _WORD.findall(text):
        if token not in _VALUES and 6 <= len(token) <= _LONGEST_NUMERAL and _GLUED.fullmatch(token):
            pieces += _PART.findall(token)
        else:
            pieces.append(token)
    return pieces


def _ends_in_digit(pieces: list[str]) -> bool:
    return any(piece.strip() and piece.strip()[-1].isdigit() for piece in pieces[-2:])


def _written(values: list[int]) -> list[str]:
    """Join numbers as they are dictated: 900, 16 is one group 916; 3, 0, 1 are three."""
    if not values:
        return []
    groups: list[int] = []
    room = 0  # a number below this still belongs to the group
    for value in values:
        if groups and 0 < value < room:
            groups[-1] += value
        else:
            groups.append(value)
        room = 100 if value >= 100 else 10 if value >= 20 and value % 10 == 0 else 0
        if value == 0:
            room = 0
    return [" ", " ".join(map(str, groups)), " "]

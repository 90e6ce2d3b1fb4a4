"""Disguises a text from filters as sellers do, at four strengths.

====  =========================================================================================
0     as everybody writes
1     a look-alike letter or two; a telephone with odd signs between its digits
2     letters spread out, or digits and signs for letters; a telephone with letters for digits
3     invisible characters, spread letters and look-alikes together; a telephone in words
====  =========================================================================================
"""

import random
from collections.abc import Callable

STRENGTHS = (0, 1, 2, 3)

_TO_LATIN = dict(zip("аеорсхукмтнв", "aeopcxykmthb", strict=True))
_TO_CYRILLIC = {latin: cyrillic for cyrillic, latin in _TO_LATIN.items()}
_LEET = {
    "о": "0",
    "а": "@",
    "з": "3",
    "ч": "4",
    "o": "0",
    "a": "@",
    "e": "3",
    "i": "1",
    "s": "$",
    "l": "|",
    "б": "6",
}
_INVISIBLE = "\u200b\u200c\u2060\u00ad"
_DIGIT_WORDS = {
    "ru": ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"],
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
}
_DIGIT_LETTERS = {"0": "О", "1": "l", "3": "З", "6": "б"}


def disguise(rng: random.Random, text: str, strength: int) -> str:
    """Write ``text`` so that people still read it."""
    if strength == 0:
        return text
    if strength == 1:
        return _some(rng, text, 0.35, _look_alike)
    if strength == 2:
        if rng.random() < 0.5:
            separator = rng.choice((" ", ".", "-", "_", "*"))
            return separator.join(text)
        return _some(rng, text, 0.7, lambda letter: _LEET.get(letter.lower(), letter))
    spread = rng.choice((" ", ". ", " - ", "_")).join(text) if rng.random() < 0.4 else text
    spread = _some(rng, spread, 0.4, _look_alike)
    return "".join(letter + (rng.choice(_INVISIBLE) if rng.random() < 0.4 else "") for letter in spread)


def telephone(rng: random.Random, language: str, strength: int) -> str:
    """Write a made-up telephone number of the language's countries."""
    if language == "ru":
        area, rest = (
            rng.choice(("900", "903", "911", "916", "921", "926", "950", "963", "977", "999")),
            _digits(rng, 7),
        )
        plain = rng.choice(
            (
                "8 ({a}) {b}-{c}-{d}",
                "+7 {a} {b}-{c}-{d}",
                "8{a}{b}{c}{d}",
                "8-{a}-{b}-{c}-{d}",
                "{a}{b}{c}{d}",
            )
        )
        digits = "8" + area + rest
        written = plain.format(a=area, b=rest[:3], c=rest[3:5], d=rest[5:])
    else:
        area, rest = rng.choice(("212", "415", "617", "503", "720")), "555" + _digits(rng, 4)
        plain = rng.choice(
            ("({a}) {b}-{c}", "{a}-{b}-{c}", "{a}.{b}.{c}", "+1 {a} {b} {c}", "07700 900{e}", "{a}{b}{c}")
        )
        digits = area + rest
        written = plain.format(a=area, b=rest[:3], c=rest[3:], e=rest[-3:])
    if strength == 0:
        return written
    if strength == 1:
        return rng.choice((" ", ".", "*", "_", " - ")).join(digits if rng.random() < 0.5 else _pairs(digits))
    if strength == 2:
        return _some(rng, written, 0.8, lambda digit: _DIGIT_LETTERS.get(digit, digit))
    words = [_DIGIT_WORDS[language][int(digit)] if rng.random() < 0.8 else digit for digit in digits]
    return rng.choice((" ", ", ", "-", " ")).join(words)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _pairs(digits: str) -> list[str]:
    return [digits[:1], digits[1:4], digits[4:7], digits[7:9], digits[9:]]


def _look_alike(letter: str) -> str:
    return _TO_LATIN.get(letter) or _TO_CYRILLIC.get(letter) or letter


def _some(rng: random.Random, text: str, share: float, change: Callable[[str], str]) -> str:
    changed = "".join(change(letter) if rng.random() < share else letter for letter in text)
    if changed != text:
        return changed
    return "".join(change(letter) for letter in text)

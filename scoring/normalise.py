"""Normalises text to its look: characters that look alike become one, invisible ones are removed."""

import html
import re
import unicodedata

# An ad can be longer than anybody reads: its head and its tail are kept, where contacts are put.
MAX_CHARACTERS = 8_000
TAIL_CHARACTERS = 2_000

_PLAIN = re.compile(r"[\n\x20-\x25\x27-\x3b\x3d-\x7eА-Яа-яЁё«»—–…₽°№“”’•]*")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,300}>")
_SPACES = re.compile(r"[^\S\n]+")

_PAIRS = (
    "αa βb εe ηn ιi κk νv οo ρp τt υu χx ωw ςc γy "  # Greek
    "гг үy өo іи ґг єе ўу јj ѕs һh ԁd ԛq ԝw ӏl "  # the Cyrillic of the neighbours
    "ᴀa ʙb ᴄc ᴅd ᴇe ғf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ʀr ᴛt ᴜu ᴠv ᴡw ʏy ᴢz 🅰a 🅱b 🅾o 🅿p "
    "‐- ‑- ‒- ―- ‘' ’' `' ´' “\" ”\" „\" ·• ∙• ●• ‚, ٠0 ١1 ٢2 ٣3 ٤4 ٥5 ٦6 ٧7 ٨8 ٩9"
)
_LOOK_ALIKE = {ord(pair[0]): pair[1] for pair in _PAIRS.split()}
_LOOK_ALIKE |= {0x1F1E6 + n: chr(ord("a") + n) for n in range(26)}  # flags spelled out as letters
_LOOK_ALIKE |= {ord("ё"): "е", ord("Ё"): "Е"}

_LATIN_TO_CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "авсдефгнижклмпоркгстиушхуз")
_CYRILLIC_TO_LATIN = str.maketrans("абвгдежзийклмнопрстуфхцчшщъыьэюя", "a6brdex3uuklmhonpctyfxu4wwbibeur")
_LEET_CYRILLIC = (
    str.maketrans("01346@$*|!", "оизчбасхли"),
    str.maketrans("01346@$*|!", "олэабасали"),
)
_LEET_LATIN = (
    str.maketrans("0134579@$*|!8", "oieastgasxlib"),
    str.maketrans("0134579@$*|!8", "oleastqasalib"),
)
_REPEATED = re.compile(r"(\w)\1{2,}")
_CYRILLIC = re.compile(r"[а-я]")
_LATIN = re.compile(r"[a-z]")
_SURELY_CYRILLIC = re.compile(r"[бгджзийлпфцчшщъыьэюя]")  # letters without a look-alike in the other script
_SURELY_LATIN = re.compile(r"[dfgijlqsvwz]")


def clean(text: str) -> str:
    """Return ``text`` without invisible characters, its look-alike characters as one; case is kept.

    Markup, control and zero-width characters, stacked accents and circled or bold letters become plain
    text. Of a text longer than `MAX_CHARACTERS` the head and the tail are kept.
    """
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - TAIL_CHARACTERS] + "\n" + text[-TAIL_CHARACTERS:]
    if _PLAIN.fullmatch(text):
        return text.replace("№", " номер ").replace("ё", "е").replace("Ё", "Е").replace("’", "'")
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = text.replace("№", " номер ")
    text = unicodedata.normalize("NFKD", text).replace("\u0438\u0306", "й").replace("\u0418\u0306", "Й")
    return _SPACES.sub(" ", text.translate(_VISIBLE))


class _Visible(dict[int, str]):
    """The visible form of each character, computed when it is first met; at most about a million entries."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character == "\n" or " " <= character <= "~":
            drawn = character
        elif category in ("Mn", "Me", "Cf"):
            drawn = ""
        else:
            drawn = " " if category[0] in "CZ" else _LOOK_ALIKE.get(code, character)
        self[code] = drawn
        return drawn


_VISIBLE = _Visible()


def to_latin(word: str) -> str:
    """Write the Cyrillic letters of a lower-case word as the Latin ones that look like them."""
    return word.translate(_CYRILLIC_TO_LATIN)


def fold_scripts(word: str) -> str:
    """Write a lower-case word that mixes Cyrillic and Latin in the script that most of its letters have."""
    return foldings(word)[0]


def foldings(word: str) -> list[str]:
    """List the spellings of a word of two scripts in either, the likelier first; else only the word."""
    cyrillic = len(_CYRILLIC.findall(word))
    latin = len(_LATIN.findall(word))
    if not cyrillic or not latin:
        return [word]
    both = [word.translate(_LATIN_TO_CYRILLIC), to_latin(word)]
    surely = len(_SURELY_CYRILLIC.findall(word)) - len(_SURELY_LATIN.findall(word))
    return both if (surely or cyrillic - latin) >= 0 else both[::-1]


def readings(word: str) -> list[str]:
    """List the readings of an odd lower-case word: signs as letters, long runs shortened."""
    found = []
    if not word.isalpha() and not word.isdigit():
        tables = _LEET_CYRILLIC if _CYRILLIC.search(word) else _LEET_LATIN
        found += [word.translate(table) for table in tables]
        found.append("".join(letter for letter in word if letter.isalpha()))
    if _REPEATED.search(word):
        found += [_REPEATED.sub(r"\1", word), _REPEATED.sub(r"\1\1", word)]
    if _LATIN.search(word) and not _CYRILLIC.search(word) and len(word) >= 4:
        found.append(word.translate(_LATIN_TO_CYRILLIC))
    return [reading for reading in found if reading != word and len(reading) >= 3]

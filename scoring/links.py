"""Finds e-mail addresses, sites and handles, plain or spelled out, and removes them from the text."""

import re
from dataclasses import dataclass

_DOT = r"(?:\s?\.\s?|\s?[\[({]\s?(?:\.|dot|точка|тчк)\s?[\])}]\s?|\s(?:dot|точка|тчк)\s)"
_AT = (
    r"(?:\s?@\s?|\s?[\[({<]\s?(?:@|at|a|эт|собака|собачка|dog)\s?[\])}>]\s?|"
    r"\s(?:собака|собачка|гав|гав гав|sobaka|эт|at)\s)"
)
_SURE_ZONE = r"(?:ru|рф|su|com|net|org|info|biz|ком|by|kz|ua|uz|ру|орг|нет|io|co\.uk|de|eu|xyz|pro|example)"
_ODD_ZONE = r"(?:shop|store|online|site|club|market|agency|space)"
_WORD_ZONE = r"(?:me|app|top|link|page|cc|tv|uk|us|ca|ly|to|gg|dev|it|by|in)"  # words too: a path must follow
_MAIL_HOSTS = (
    r"(?:gmail|g mail|mail|yandex|ya|яндекс\w*|мейл|мэйл|маил|майл|гмейл|джимейл|почта|hotmail|outlook|yahoo|"
    r"inbox|bk|list|rambler|рамблер|icloud|proton\w*|aol|live|ukr)"
)

_SPOKEN_DOT = r"(?:\.|\s?[\[({]\s?(?:\.|dot|точка|тчк)\s?[\])}]\s?|\s(?:dot|точка|тчк)\s)"
_EMAIL = re.compile(
    rf"[\w.+\-]{{2,40}}{_AT}[\w\-]{{2,40}}(?:{_SPOKEN_DOT}(?:{_SURE_ZONE}|[\w\-]{{2,20}}{_SPOKEN_DOT}[\w\-]{{2,20}}))\b"
    r"|[\w.+\-]{1,40}@[\w\-]{2,40}\.[\w.\-]{2,30}"
)
_EMAIL_HOST = re.compile(rf"[\w.+\-]{{1,40}}{_AT}{_MAIL_HOSTS}\b(?:\s?[.,]?\s?(?:ru|com|ру|ком))?")
# " at " is frequent in English: it makes an address only with a host after it.
_AT_HOST = re.compile(rf" at (?:[\w\-]{{2,40}}(?:\.\w|\s?[\[({{]|\s(?:dot|точка|тчк)\s)|{_MAIL_HOSTS}\b)")
# `masha62 на яндекс ру`: the word before has to look like the name of a mailbox.
_ON_HOST = re.compile(
    r"(?<=[a-z0-9_]) на (?:мэйл|мейл|маил|майл|яндекс\w*|гмейл|джимейл|рамблер\w*|mail|gmail|yandex)"
    r"\b\s?[.,]?\s?(?:точка\s|тчк\s|dot\s)?(?:ру|ком|ru|com)\b"
)
_ADDRESS = re.compile(
    r"(?:https?|hxxps?)\s?:\s?/{1,2}\s?[^\s,]{3,300}|\bwww\s?\.\s?[\w\-]{2,60}(?:\s?\.\s?[\w\-]{2,20}\b){1,3}\S{0,200}"
)
_KNOWN_HOST = re.compile(
    rf"\b(?:t|wa|m|vk|tg|fb|ok|inst|taplink|linktr|discord|bit|goo|clck|tinyurl|calendly|instagram|telegram|youtube|"
    rf"facebook|tiktok|whatsapp|viber|snapchat|onlyfans){_DOT}(?:me|com|ru|cc|ee|gg|ly|gl|be|click|su)\b[/\w.\-?=@+]{{0,80}}"
    r"|\b(?:vk|t|wa) (?:com|me)\s?/\s?\w{2,40}"
)
# The end of a known host, and of any other. A rare character first lets the search skip plain text.
_HOST_END = re.compile(r"[. ][\s\])}]{0,3}(?:me|com|ru|cc|ee|gg|ly|gl|be|click|su)\b")
_TIGHT_DOT = re.compile(r"\.[^\W\d]")
_DOMAIN = re.compile(rf"\b(?:[\w\-]{{1,30}}\.){{0,3}}[\w\-]{{2,40}}\.{_SURE_ZONE}\b(?:/[^\s,]{{0,200}})?")
_ODD_DOMAIN = re.compile(
    rf"\b[\w\-]{{3,40}}\.(?:{_ODD_ZONE}\b(?:/[^\s,]{{0,200}})?|{_WORD_ZONE}/[^\s,]{{1,200}})"
)
_SPELLED_DOMAIN = re.compile(
    rf"(?<![\w\-])[\w\-]{{2,40}}(?:\s?[\[({{]?\s?(?:dot|точка|тчк)\s?[\])}}]?\s?[\w\-]{{2,40}}){{0,2}}"
    rf"(?:\s[\[({{]?(?:dot|точка|тчк)[\])}}]?\s?|[\[({{]\s?(?:\.|dot|точка)\s?[\])}}])(?:{_SURE_ZONE}|{_ODD_ZONE}|{_WORD_ZONE}|co)\b"
    rf"|\b[a-z0-9\-]{{3,40}}\s\.\s(?:{_SURE_ZONE}|shop|store|online|site)\b"
)
_HANDLE = re.compile(
    r"(?<![\w.@/])@\s?[a-zа-я_][\w.]{2,40}|(?<![\w/])\w{2,32}#\d{4}\b|(?<![\w/])u/\w{3,30}\b|\bid\d{6,12}\b"
)
_SOME_ID = re.compile(r"id\d{6}")
_MESSENGER = (
    r"(?:вотсап\w*|ватсап\w*|вацап\w*|whats\s?app|wa|viber|вайбер\w*|telegram\w*|телеграм\w*|телег[аеуи]|тг|tg|тгк|insta\w*|"
    r"inst|ig|инст[аеуы]?\w*|snap\w*|снап\w*|kik|skype|скайп\w*|discord|дискорд\w*|вк|vk|wechat|line|signal|facebook|fb|"
    r"тикток\w*|tiktok|twitter|дзен|юла|паблик|k1k|соцсет\w*|ник|никнейм|nickname|username|telega)"
)
_NAMED_HANDLE = re.compile(
    rf"\b{_MESSENGER}\b\s?"
    r"(?:[:\-–—=>@]+|me\s?[:@]|is|at|as|under|my|мой|ник|под ником|name|id|по нику|канал|handle)?"
    r"[\s:@\-–]{0,3}"
    r"(?:[a-z][a-z0-9]{0,40}(?:[._][a-z0-9._]*[a-z0-9]|\d[a-z0-9._]*))\b"
)
_COLON_HANDLE = re.compile(rf"\b{_MESSENGER}\s?(?:me\s?)?[:@=]\s{{0,2}}[a-z][a-z0-9_.]{{3,30}}\b")
_COLON_NAME = re.compile(r"[:@=]\s{0,2}[a-z]")
# Shops that sold the goods, and similar sites: a mention, seldom a way to the seller.
_SHOPS = re.compile(
    r"amazon|ebay|ikea|walmart|target\.|bestbuy|homedepot|wayfair|imdb|wikipedia|apple\.com|samsung|ozon|wildberries|"
    r"aliexpress|dns-shop|mvideo|avito|booking|kinopoisk|drive2"
)
_TECHNOLOGY = re.compile(
    r"^(?:asp|ado|vb|node|vue|d3|three|socket|crypto)\.(?:net|io|js)$|^\d+\.\d|^\d+[.x]\d"
)

_CYRILLIC_AT = re.compile(r"(?<=[а-я])@(?=[а-я])")  # a letter of `инст@грам`, no address


@dataclass(slots=True)
class LinkEvidence:
    """How many addresses of each kind a text holds; ``text`` is the text without them."""

    text: str
    email: int = 0
    link: int = 0
    shop: int = 0
    handle: int = 0
    spelled: int = 0


def find_links(lower: str) -> LinkEvidence:
    """Look for addresses in a lower-case text; each is counted once and replaced by a space."""
    has_at = "@" in lower
    if has_at:
        lower = _CYRILLIC_AT.sub("а", lower)
    found = LinkEvidence(lower)
    has_dot = "." in lower
    spelled = "dot" in lower or "точка" in lower or "тчк" in lower
    if (
        has_at
        or "собак" in lower
        or "sobaka" in lower
        or "гав" in lower
        or "(a" in lower
        or "[a" in lower
        or _AT_HOST.search(lower)
    ):
        found.email += _take(found, _EMAIL) if has_dot or spelled else 0
        found.email += _take(found, _EMAIL_HOST)
    if " на " in lower:
        found.email += _take(found, _ON_HOST)
    if "http" in lower or "hxxp" in lower or "www" in lower:
        _take_links(found, _ADDRESS)
    if spelled or _HOST_END.search(lower):
        _take_links(found, _KNOWN_HOST)
    if has_dot and _TIGHT_DOT.search(lower):
        _take_links(found, _DOMAIN)
        _take_links(found, _ODD_DOMAIN)
    if spelled or " . " in lower:
        found.spelled += _take(found, _SPELLED_DOMAIN)
    if has_at or "#" in lower or "u/" in lower or _SOME_ID.search(lower):
        found.handle += _take(found, _HANDLE)
    found.handle += _take(found, _NAMED_HANDLE)
    if _COLON_NAME.search(lower):
        found.handle += _take(found, _COLON_HANDLE)
    return found


def _take(found: LinkEvidence, pattern: re.Pattern[str]) -> int:
    found.text, count = pattern.subn(" ", found.text)
    return count


def _take_links(found: LinkEvidence, pattern: re.Pattern[str]) -> None:
    def count(match: re.Match[str]) -> str:
        address = match[0]
        if _TECHNOLOGY.search(address):
            return address
        if _SHOPS.search(address):
            found.shop += 1
        else:
            found.link += 1
        return " "

    found.text = pattern.sub(count, found.text)

"""Finds telephone numbers in any spelling, and distinguishes them from the other long numbers of an ad."""

import re
from dataclasses import dataclass

from scoring.numerals import spell_out, stands_beside_digits

_LOOK_ALIKE_DIGITS = {ord(a): b for a, b in zip("оolіi|збsвbzчq", "00111136588249", strict=True)}
# Digits, or characters that look like digits among digits, with little between them.
_RUN = re.compile(
    r"(?<![\w#])(?:\+\s?)?[(\[]?[\doоlзб](?:[\s()\[\]\-.–—_/*•~|:,=]{0,4}[\doоlіiзбsвbzч|]){5,24}(?![^\W_])"
)
_THREE_DIGITS = re.compile(r"\d\D*\d\D*\d")  # half of the six characters of the shortest run are digits
_GROUPS = re.compile(r"[\doоlіiзбsвbzч|]+")
_ZEROS_OR_DIGITS = re.compile(r"\d|[оo]{2}")
_CARD = re.compile(r"[2456]\d{3}")
_FILLER = re.compile(
    r"(?<=\d)[\s,]*(?=[a-zа-я])"
    r"(?:(?:потом|затем|далее|дальше|после|и|then|and|dash|тире|дефис|пробел|в конце|скобка)\s+){1,3}"
    r"(?=[\d(])"
)
_SERIAL = re.compile(
    r"(?:номенклатур\w*|nomenclature|inventory|identifier|идентификатор\w*|batch|factory|stock|артикул|арт|imei|имей|име[ий]|s/?n|с/н|серийн\w*|заводск\w*|vin|вин|isbn|штрих\W?код|код|code|part|oem|oe|ref\w*|"
    r"catalog\w*|cat\.?|катал\w*|\bкат\.?|аналог\w*|детал\w*|запчаст\w*|модел\w*|model|инн|огрн\w*|снилс|кадастр\w*|sku|style|ean|upc|barcode|"
    r"кузов\w*|двигател\w*|шасси|рам[аы]|заказ\w*|order|трек\w*|track\w*|парт\w*|номер детали|лот|lot|serial|"
    r"лицензи\w*|сертификат\w*|договор\w*|инвентарн\w*|гост|ту|bosch|бош|поезд|рейс|flight|участ\w*)"
    r"(?:\s?(?:number|numbers|no|номер|код|№))?[\s.:#№\-(]{0,4}(?:[a-zа-я]{1,4}[\s-]?)?(?:\d{1,8}[\s/-]+){0,3}$"
)
_SERIAL_BEFORE = re.compile(  # with a few words between: "IMEI is the one on the box, 6329228"
    r"\b(?:imei|имей|артикул\w*|серийн\w*|s/n|vin|isbn|катал\w*|кадастр\w*|sku|barcode|catalog\w*|oem|"
    r"part number)(?:[\s,.:]+[a-zа-я]+){0,5}[\s,.:№#-]*$"
)
_NAMED_NUMBER = re.compile(  # of things other than telephones: "casting number", "литейный номер"
    r"\b(?!my|our|the|this|that|phone|telephone|tel|mobile|cell|contact|call|text|whatsapp|viber|work|home|office|new|"
    r"direct|landline|correct|following)[a-z]{3,}\s(?:number|no)[\s:.#№]*$"
    r"|\b(?!мобил|сотов|домаш|рабоч|город|контакт|нов|телефон|прям|личн|актуальн|мой)[а-я]{3,}(?:ый|ой|ий)\sномер[\s:.#№]*$"
)
_CALL = re.compile(
    r"\b(?:зво\w*|позвон\w*|набира\w*|набер\w*|тел|телефон\w*|т|моб\w*|сот\w*|номер\w*|связ\w*|контакт\w*|пишите|смс|sms|"
    r"whats?\s?app|wa|ватсап\w*|вотсап\w*|вацап\w*|viber|вайбер\w*|телеграм\w*|тг|tg|telegram|signal|"
    r"call|calls|ring|phone|tel|t3l|te1|тэл|cell|mobile|text|txt|dial|reach|contact|number|message|whatsapp|voicemail|"
    r"спросить|ask for|leave)\b[^\d]{0,40}$"
)
_CALL_AFTER = re.compile(
    r"^[^\w\d]{0,3}(?:\w+\W+){0,2}(?:звон\w*|позвон\w*|спросить|ask|leave|call|text|voicemail|смс|sms|whatsapp|ватсап|"
    r"вотсап|viber|вайбер|писать|в любое время|evenings|anytime|after)"
)
_UNIT = re.compile(
    r"^\s?(?:руб|р\b|₽|\$|€|£|usd|eur|тыс|т\.?р|км|km|miles|mi\b|мм|mm|см|cm|м2|кв|м\b|гб|gb|мб|шт|лет|года?\b|г\b|kg|кг|"
    r"вт|w\b|в\b|ач|mah|мач|л\b|hp|x\s?\d|х\s?\d|%)"
)
_PRICE_BEFORE = re.compile(r"(?:[$€£₽]|цена|price|за|asking|стоимость|пробег|mileage)\s*:?\s*$")
_COUNTRIES = (
    "375",
    "380",
    "998",
    "996",
    "992",
    "374",
    "994",
    "995",
    "993",
    "997",
    "373",
    "44",
    "49",
    "1",
    "7",
)
_SHORT_PHONE = range(6, 8)
_LONG = 10
# "номер 1376485" is a part's as often as a seller's; "my number is 137-64-85" is not.
_BARE_NUMBER = re.compile(r"(?<!мой )(?<!наш )(?<!my )(?<!phone )(?:номер|number|no)[\s:.#№]*$")


@dataclass(slots=True)
class PhoneEvidence:
    """Counts of the numbers that are surely and perhaps telephones, serial numbers, and cards."""

    sure: int = 0
    perhaps: int = 0
    serial: int = 0
    card: int = 0
    disguised: int = 0


def find_phones(lower: str, number_words: int) -> PhoneEvidence:
    """Look for telephones in a lower-case text that has ``number_words`` numerals written as words."""
    evidence = PhoneEvidence()
    spelled = number_words >= 3 or (number_words > 0 and stands_beside_digits(lower))
    text = spell_out(lower) if spelled else lower
    if not _THREE_DIGITS.search(text):
        return evidence
    text = _FILLER.sub(" ", text)
    for run in _RUN.finditer(text):
        _judge(evidence, text, run, is_spelled=spelled and run[0] not in lower)
    return evidence


def _judge(evidence: PhoneEvidence, text: str, run: re.Match[str], *, is_spelled: bool) -> None:
    raw = run[0]
    written = _GROUPS.findall(raw)
    while written and not _ZEROS_OR_DIGITS.search(written[-1]):
        written.pop()  # a short word after the number, not a part of it
    groups = [group.translate(_LOOK_ALIKE_DIGITS) for group in written]
    letters = sum(not character.isdigit() for group in written for character in group)
    digits = "".join(groups)
    if letters * 2 > len(digits) or not digits.isdigit():
        return
    before, after = text[max(0, run.start() - 60) : run.start()], text[run.end() : run.end() + 40]
    called = bool(_CALL.search(before) or _CALL_AFTER.search(after))
    if called and len(digits) < _LONG and _BARE_NUMBER.search(before) and not _CALL_AFTER.search(after):
        called = False
    named = _SERIAL.search(before) or _NAMED_NUMBER.search(before)
    if (named or (_SERIAL_BEFORE.search(before) and not called)) and not re.search(
        r"(?:тел|phone|звон\w*|call)\W*$", before
    ):
        evidence.serial += 1
        return
    if len(digits) == 16 and all(len(group) == 4 for group in groups) and _CARD.match(digits):
        evidence.card += 1
        return
    # A price or a mileage is no telephone even after "call me", unless it has the length of one.
    if (not called or len(digits) < _LONG) and (_UNIT.search(after) or _PRICE_BEFORE.search(before)):
        return
    listed = bool(re.search(r"[,:/]", raw)) and not all(len(group) == 1 for group in groups)
    changed = letters > 0 or (len(groups) >= 6 and max(map(len, groups)) <= 2) or is_spelled
    shape = _shape(digits, groups, raw.lstrip().startswith("+"), called, changed)
    if listed and not called:
        shape -= 1
    if shape >= 2:
        evidence.sure += 1
        evidence.disguised += changed
    elif shape == 1:
        evidence.perhaps += 1


def _shape(digits: str, groups: list[str], plus: bool, called: bool, changed: bool) -> int:
    """Return how much a number is like a telephone number: 2 surely, 1 perhaps, 0 not."""
    count, sizes = len(digits), [len(group) for group in groups]
    if plus and 10 <= count <= 15:
        return 2
    if count == 11 and (shape := _shape_of_eleven(digits, sizes, called)):
        return shape
    if count in (10, 11) and digits[0] == "0":
        return 2 if called or changed else 1 if len(groups) > 1 else 0
    if count == 10:
        usual = ([3, 3, 2, 2], [3, 3, 4], [3, 7]) if digits[0] == "9" else ([3, 3, 4],)
        return 2 if called or changed or sizes in usual else 1
    if 11 <= count <= 13 and digits.startswith(_COUNTRIES[:11]):
        return 2 if called or changed or len(groups) > 1 else 1
    return _shape_of_others(count, sizes, called, changed)


def _shape_of_eleven(digits: str, sizes: list[int], called: bool) -> int:
    """Return the shape of eleven digits that begin as in Russia, North America or Britain; 0 for others."""
    if digits[0] in "78" and digits[1] in "93486":
        return 2
    if digits[0] == "1":
        return 2 if sizes in ([1, 3, 3, 4], [1, 10], [11]) and (called or len(sizes) > 1) else 1
    return 2 if digits.startswith("07") else 0


def _shape_of_others(count: int, sizes: list[int], called: bool, changed: bool) -> int:
    """Return the shape of a number without a known beginning."""
    if count in (7, 8, 9, 12) and changed:
        return 2 if called or count == 7 else 1
    if count in _SHORT_PHONE:
        tidy = sizes in ([3, 4], [3, 2, 2], [2, 2, 2], [7], [6], [1, 2, 2, 2])
        return 2 if called and tidy and sizes not in ([6],) else 1 if called and tidy else 0
    return 1 if 9 <= count <= 13 and called else 0

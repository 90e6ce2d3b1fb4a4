"""Telephones in any spelling are found; the other long numbers of an ad are not telephones."""

import re

import pytest

from scoring.numerals import numerals_in
from scoring.phones import PhoneEvidence, find_phones


def found(text: str) -> PhoneEvidence:
    return find_phones(text.lower(), sum(map(numerals_in, re.findall(r"[^\W\d_]+", text.lower()))))


@pytest.mark.parametrize(
    "text",
    [
        "Звоните 8 (916) 000-12-34",
        "тел 89160001234",
        "+7 916 000 12 34, Олег",
        "8 9 1 6 0 0 0 1 2 3 4",
        "89l6OOO1234 звонить до 21",
        "восемь девятьсот шестнадцать три ноль один двадцать два ноль семь",
        "text me at 415 555 01 02",
        "(212) 555-0187",
        "call two one two five five five oh one eight seven",
        "+44 7700 900123",
        "07911 123 456",
        "мой номер 123-45-67",
        "мобильный номер 916 000-12-34",
        "phone keith on 07700 nine hundred 123",
        "вотсап восемьдевятьсотшестнадцать0001234",
        "прокат, номер 8 916 000-12-34",
    ],
)
def test_a_telephone_is_found_however_it_is_written(text: str) -> None:
    assert found(text).sure == 1


@pytest.mark.parametrize(
    "text",
    [
        "Артикул 8916-0001234",
        "IMEI 356938035643809",
        "оригинал, номер 1376485",
        "цена 1 500 000 руб",
        "пробег 145 000 км",
        "размер 200 х 150 х 60",
        "выпуск 2012 2013 2014 2015",
        "Bosch 0 261 207 837",
        "ISBN 978-5-17-118366-0",
        "$5,400 obo",
        "звоните через площадку. 165000 км, один хозяин",
        "casting number 4387 1120 66, came off a v50",
        "литейный номер 4387112066",
        "style code 553558-161, no calls",
        "Кат. номер 5702-3708000, аналог 426.3708",
        "Cat. no. 5702-3708000",
    ],
)
def test_other_long_numbers_are_no_telephones(text: str) -> None:
    assert (found(text).sure, found(text).perhaps) == (0, 0)


def test_a_bank_card_is_told_from_a_telephone() -> None:
    evidence = found("переведите на 4276 1234 5678 9012")
    assert (evidence.card, evidence.sure) == (1, 0)


def test_a_telephone_with_letters_for_digits_is_a_disguised_one() -> None:
    assert found("звоните 8 9l6 OOO 12 З4").disguised == 1

"""Addresses and handles are found plain or spelled out, and taken out of the text."""

import pytest

from scoring.links import find_links


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("пишите masha@mail.ru", "email"),
        ("masha собака пример точка ру", "email"),
        ("mo [at] example [dot] org", "email"),
        ("связь: marki62 на мэйл ру", "email"),
        ("смотрите https://example.com/a", "link"),
        ("all at lamps-example.shop", "link"),
        ("канал t.me/lamps", "link"),
        ("ищи меня vk com / lamps62", "link"),
        ("himia-legko.ru там же отзывы", "link"),
        ("our page is lamps dot example dot com", "spelled"),
        ("ищите @shuba_dom", "handle"),
        ("тг: mama_lena90", "handle"),
        ("смотрите в инст@грам mexa_kirov43", "handle"),
        ("on ig at rustyshutter.films and dm", "handle"),
        ("gamer#1234", "handle"),
    ],
)
def test_a_way_past_the_site_is_found_and_its_kind_named(text: str, kind: str) -> None:
    evidence = find_links(text)
    assert getattr(evidence, kind) >= 1, evidence


@pytest.mark.parametrize(
    "text",
    [
        "шины 205.55 r16, звонить не нужно",
        "цена 1.5 млн",
        "asp.net developer",
        "мотор 1.6 л.",
        "in good shape. no marks",
    ],
)
def test_full_stops_of_ordinary_text_make_no_address(text: str) -> None:
    evidence = find_links(text)
    assert (evidence.email, evidence.link, evidence.handle, evidence.spelled) == (0, 0, 0, 0)


def test_an_address_is_taken_out_of_the_text_so_that_it_is_counted_once() -> None:
    evidence = find_links("мой сайт https://lamps.ru и почта a@lamps.ru здесь")
    assert "lamps" not in evidence.text
    assert (evidence.email, evidence.link) == (1, 1)


def test_the_page_of_a_shop_where_the_thing_was_bought_is_told_apart() -> None:
    assert find_links("https://www.ikea.com/malm").shop == 1

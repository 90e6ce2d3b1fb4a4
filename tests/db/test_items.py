"""Ads: loaded as they are, read back with their seller."""

from dataclasses import astuple, replace

from sqlalchemy import Engine

from db import items
from db.engine import transaction
from scoring import Ad
from tests.db.rows import execute
from training.sample_ads import sample_ads


def load(engine: Engine, ads: list[Ad]) -> None:
    with transaction(engine) as connection:
        items.load_ads(connection, ads)


def read(engine: Engine, *item_ids: int) -> dict[int, Ad]:
    with transaction(engine) as connection:
        return {item_id: Ad(*row) for item_id, row in items.read_ads(connection, item_ids).items()}


def test_an_ad_is_read_as_it_was_loaded(database: Engine) -> None:
    ads = sample_ads(50, seed=7)
    load(database, ads)
    assert read(database, *range(1, 51)) == {ad.item_id: ad for ad in ads}


def test_a_row_has_the_fields_of_an_ad_in_their_order(database: Engine) -> None:
    [ad] = sample_ads(1, seed=7)
    load(database, [ad])
    with transaction(database) as connection:
        assert tuple(items.read_ads(connection, [1])[1]) == astuple(ad)


def test_ads_that_do_not_exist_are_left_out(database: Engine) -> None:
    load(database, sample_ads(1, seed=7))
    assert list(read(database, 1, 2, 3)) == [1]


def test_loading_an_ad_again_overwrites_it_and_its_seller(database: Engine) -> None:
    [ad] = sample_ads(1, seed=7)
    changed = replace(ad, description="теперь дешевле", is_verified_seller=not ad.is_verified_seller)
    load(database, [ad])
    load(database, [changed])
    assert read(database, 1) == {1: changed}


def test_loading_no_ads_is_nothing_to_do(database: Engine) -> None:
    load(database, [])
    assert execute(database, "SELECT count(*) FROM items") == [(0,)]


def test_an_ad_inserted_by_hand_after_a_load_gets_a_free_id(database: Engine) -> None:
    load(database, sample_ads(5, seed=7))
    inserted = execute(
        database,
        "INSERT INTO items (seller_id, name, description, category) VALUES (1, 'n', 'd', 3) RETURNING id",
    )
    assert inserted == [(6,)]

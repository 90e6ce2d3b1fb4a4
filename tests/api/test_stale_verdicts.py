"""A verdict is of one text: an edit hands the ad in again, and the old verdict keeps its text."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from db.engine import transaction
from db.items import ad_hash, load_ads
from db.judgements import Judgement, write_verdicts
from db.submissions import Outcome
from scoring import Ad
from submissions.resubmitting import MAX_ADS
from tests.db.rows import execute, submit
from tests.waiting import wait_until

AD = Ad(1, 1, False, "Диван", "Мягкий, почти новый", category=5, images_qty=3)
EDITED = replace(AD, description="Звоните 8 916 000-12-34, Олег")


def approve(engine: Engine, ads: Sequence[Ad]) -> None:
    """Store the ads, and give each the verdict of its present content."""
    with transaction(engine) as connection:
        load_ads(connection, ads)
        # Their sellers may have changed with that; no relay has seen it.
        connection.execute(text("DELETE FROM verification_changes"))
    message_ids = submit(engine, [ad.item_id for ad in ads])
    with transaction(engine) as connection:
        write_verdicts(
            connection,
            [Outcome(one, 0, ad.item_id, False, 0.01) for one, ad in zip(message_ids, ads, strict=True)],
            [
                Judgement(one, 0, "text-0+x", 0.5, 0.08, 0.92, "approve", ad_hash=ad_hash(ad))
                for one, ad in zip(message_ids, ads, strict=True)
            ],
        )


@pytest.fixture
def approved(client: httpx.Client, database: Engine) -> None:
    """Task 1: AD is ad 1, and was approved."""
    approve(database, [AD])


def pending(engine: Engine) -> list[tuple[object, ...]]:
    """The items of the pending submissions; the relay of the API may have published them."""
    return execute(engine, "SELECT item_id FROM moderation_results WHERE status = 'pending' ORDER BY id")


def details(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/submissions/1").json()
    return found


@pytest.mark.parametrize(
    "edited",
    [
        EDITED,
        replace(AD, name="Диван 8 916 000-12-34"),
        replace(AD, category=6),
        replace(AD, images_qty=0),
        replace(AD, is_verified_seller=True),
    ],
    ids=["description", "name", "category", "images", "seller"],
)
@pytest.mark.parametrize("path", ["/items", "/items/bulk"])
@pytest.mark.usefixtures("approved")
def test_an_edit_hands_the_ad_in_again_and_makes_its_verdict_stale(
    client: httpx.Client, database: Engine, path: str, edited: Ad
) -> None:
    assert details(client)["is_stale"] is False
    ad = asdict(edited)
    assert client.post(path, json={"items": [ad]} if path == "/items/bulk" else ad).status_code == 200
    assert pending(database) == [(1,)]
    assert details(client)["is_stale"] is True


@pytest.mark.usefixtures("approved")
def test_an_edit_by_hand_does_so_too(client: httpx.Client, database: Engine) -> None:
    execute(database, "UPDATE items SET description = :text WHERE id = 1", text=EDITED.description)
    assert pending(database) == [(1,)]
    assert details(client)["is_stale"] is True


@pytest.mark.usefixtures("approved")
def test_an_ad_that_is_stored_again_as_it_was_is_not_handed_in(
    client: httpx.Client, database: Engine
) -> None:
    for _ in range(2):
        assert client.post("/items", json=asdict(AD)).json()["status"] == "updated"
    assert pending(database) == []
    assert details(client)["is_stale"] is False


def test_an_ad_that_nobody_handed_in_or_that_was_taken_back_is_not_handed_in_by_an_edit(
    client: httpx.Client, database: Engine
) -> None:
    client.post("/async_predict?item_id=2")
    client.post("/moderation_result/1/cancel")
    for item_id in (2, 3, 4):
        assert client.post("/items", json={**asdict(EDITED), "item_id": item_id}).status_code == 200
    assert pending(database) == []


def test_an_edit_while_the_verdict_is_awaited_hands_the_ad_in_again(
    client: httpx.Client, database: Engine
) -> None:
    submit(database, [1])  # a worker may have read the text already
    client.post("/items", json=asdict(EDITED))
    assert execute(database, "SELECT item_id, status FROM moderation_results") == [(1, "pending")] * 2


@pytest.mark.usefixtures("approved")
def test_the_explanation_keeps_the_text_that_was_scored(client: httpx.Client, database: Engine) -> None:
    def explained() -> tuple[dict[str, Any], dict[str, Any]]:
        body = client.get("/moderation_result/1/explanation").json()
        return body["ad"], body["explanation"]

    scored = {
        "name": AD.name,
        "description": AD.description,
        "category": 5,
        "images_qty": 3,
        "is_verified_seller": False,
        "ad_hash": ad_hash(AD),
        "is_scored": True,
    }
    ad, explanation = explained()
    assert ad == {**scored, "is_current": True}
    for changed in (EDITED, replace(EDITED, name="", is_verified_seller=True)):
        client.post("/items", json=asdict(changed))
        assert explained() == ({**scored, "is_current": False}, explanation)
    execute(database, "DELETE FROM items")
    assert explained() == ({**scored, "is_current": False}, explanation)
    with transaction(database) as connection:
        load_ads(connection, [AD])
    assert explained() == ({**scored, "is_current": True}, explanation)


def test_an_old_verdict_is_explained_by_the_present_text_and_says_so(
    client: httpx.Client, database: Engine
) -> None:
    [message_id] = submit(database, [1])
    judgement = Judgement(message_id, 0, "text-0+x", 0.5, 0.08, 0.92, "approve")
    with transaction(database) as connection:
        write_verdicts(connection, [Outcome(message_id, 0, 1, False, 0.01)], [judgement])
    client.post("/items", json=asdict(EDITED))
    ad = client.get("/moderation_result/1/explanation").json()["ad"]
    assert (ad["description"], ad["is_scored"], ad["is_current"]) == (EDITED.description, None, True)
    assert details(client)["is_stale"] is None


# ------------------------------------------------------------------ the seller's verification


def wait_for_pending(engine: Engine, item_ids: Sequence[int]) -> None:
    """Wait until the ads, and no others, are handed in, and every change of a seller is processed."""
    wanted = [(one,) for one in item_ids]
    wait_until(lambda: pending(engine) == wanted, deadline_s=60, what=f"{item_ids} to be handed in")
    wait_until(
        lambda: execute(engine, "SELECT FROM verification_changes") == [],
        deadline_s=60,
        what="the changes to be processed",
    )
    assert pending(engine) == wanted


@pytest.mark.parametrize("seller_exists", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("is_verified", [False, True], ids=["from unverified", "from verified"])
def test_an_ad_that_moves_to_a_seller_of_other_verification_is_handed_in_again(
    client: httpx.Client, database: Engine, is_verified: bool, seller_exists: bool
) -> None:
    ad = replace(AD, is_verified_seller=is_verified)
    approve(database, [ad])
    if seller_exists:
        approve(database, [replace(AD, item_id=9, seller_id=9, is_verified_seller=not is_verified)])
    moved = replace(ad, seller_id=9, is_verified_seller=not is_verified)
    assert client.post("/items", json=asdict(moved)).status_code == 200
    assert pending(database) == [(1,)]
    assert details(client)["is_stale"] is True


def test_an_ad_that_moves_to_a_seller_of_the_same_verification_is_not_handed_in(
    client: httpx.Client, database: Engine
) -> None:
    approve(database, [AD])
    client.post("/items", json=asdict(replace(AD, seller_id=9)))
    assert pending(database) == []
    assert details(client)["is_stale"] is False


def test_an_ad_that_moves_by_sql_is_handed_in_again(client: httpx.Client, database: Engine) -> None:
    approve(database, [AD])
    execute(database, "INSERT INTO users VALUES (9, true)")
    execute(database, "UPDATE items SET seller_id = 9 WHERE id = 1")
    assert pending(database) == [(1,)]


def test_a_seller_that_changes_with_one_ad_has_the_other_ads_handed_in_again(
    client: httpx.Client, database: Engine
) -> None:
    approve(database, [AD, replace(AD, item_id=2), replace(AD, item_id=3, seller_id=9)])
    client.post("/items", json=asdict(replace(AD, item_id=2, is_verified_seller=True)))
    assert (2,) in pending(database)  # that ad with the request itself
    wait_for_pending(database, [2, 1])


def test_all_ads_of_a_seller_that_changes_by_sql_are_handed_in_once(
    client: httpx.Client, database: Engine
) -> None:
    count = 2 * MAX_ADS + 50
    approve(database, [replace(AD, item_id=number + 1) for number in range(count)])
    execute(database, "UPDATE users SET is_verified_seller = true WHERE id = 1")
    wait_for_pending(database, range(1, count + 1))


def test_a_seller_that_changes_there_and_back_leaves_its_verdicts_as_they_are(
    client: httpx.Client, database: Engine
) -> None:
    approve(database, [AD])
    with transaction(database) as connection:  # as two, a relay may see the first one
        for is_verified in (True, False):
            connection.execute(
                text("UPDATE users SET is_verified_seller = :it WHERE id = 1"), {"it": is_verified}
            )
    wait_for_pending(database, [])
    assert details(client)["is_stale"] is False


def test_an_ad_without_a_submission_is_not_handed_in_by_a_change_of_its_seller(
    client: httpx.Client, database: Engine
) -> None:
    with transaction(database) as connection:
        load_ads(connection, [AD])
    execute(database, "UPDATE users SET is_verified_seller = true WHERE id = 1")
    wait_for_pending(database, [])

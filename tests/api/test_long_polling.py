"""GET /moderation_result/{task_id}?wait=10: the answer comes with the outcome."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from api.services.async_batcher import TooManyWaiting
from api.services.outcome_notifier import OutcomeNotifier
from db import cancelling, submissions
from db.engine import transaction
from db.outcome_notifications import OutcomeListener
from db.submissions import Outcome
from tests.api.problems import assert_problem
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until

LISTENING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
#: For what is to happen at once; a test that waits so long has failed.
DEADLINE_S = 60


def finish(engine: Engine, *message_ids: str) -> None:
    outcomes = [Outcome(message_id, 0, 1, is_violation=True, probability=0.9) for message_id in message_ids]
    with transaction(engine) as connection:
        submissions.write_outcomes(connection, outcomes)


# ------------------------------------------------------------------ over HTTP


def test_many_who_wait_are_answered_with_the_outcome_and_hold_neither_connection_nor_thread(
    api: Api, client: httpx.Client, database: Engine
) -> None:
    waiting = 150  # the pool has ten connections
    message_ids = submit(database, [1] * waiting)
    listening_before = set(execute(database, LISTENING))

    async def wait_for_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=waiting)
        async with httpx.AsyncClient(base_url=api.url, timeout=DEADLINE_S, limits=limits) as waiter:
            asked = [
                asyncio.ensure_future(waiter.get(f"/moderation_result/{task_id}?wait=10"))
                for task_id in range(1, waiting + 1)
            ]
            await asyncio.to_thread(
                wait_until,
                lambda: len(psutil.Process(api.child.pid).net_connections()) > waiting,
                deadline_s=DEADLINE_S,
                what="all to be connected",
            )
            assert client.post("/async_predict?item_id=1").status_code == 200
            assert psutil.Process(api.child.pid).num_threads() < 50
            await asyncio.to_thread(finish, database, *message_ids)
            return await asyncio.gather(*asked)

    responses = asyncio.run(wait_for_all())
    assert [response.json()["task_id"] for response in responses] == list(range(1, waiting + 1))
    assert {response.json()["status"] for response in responses} == {"completed"}
    assert len(set(execute(database, LISTENING)) - listening_before) <= 1


def test_what_is_still_pending_after_the_wait_is_given_as_it_is(
    client: httpx.Client, database: Engine
) -> None:
    submit(database)
    for wait in ("0", "1"):
        response = client.get(f"/moderation_result/1?wait={wait}")
        assert (response.status_code, response.json()["status"]) == (200, "pending")


def test_an_unknown_task_is_404_without_a_wait(client: httpx.Client) -> None:
    assert_problem(client.get("/moderation_result/1?wait=10"), 404)


@pytest.mark.parametrize("query", ["wait=", "wait=-1", "wait=11", "wait=1.5", "wait=x", "wait=1&wait=1"])
def test_a_wait_that_cannot_be_had_is_422(client: httpx.Client, query: str) -> None:
    assert "wait" in assert_problem(client.get(f"/moderation_result/1?{query}"), 422)


def test_who_hangs_up_while_waiting_harms_nobody(client: httpx.Client, database: Engine) -> None:
    [message_id] = submit(database)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/moderation_result/1?wait=10", timeout=httpx.Timeout(60, read=0.3))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.get, "/moderation_result/1?wait=10")
        finish(database, message_id)
        assert waiting.result().json()["status"] == "completed"


# ------------------------------------------------------------------ the news themselves


def never_polls(_: Sequence[int]) -> Sequence[int]:
    pytest.fail("it listens")


@pytest.fixture
def news(database: Engine) -> Iterator[Callable[..., OutcomeNotifier]]:
    """Makes news of the database's outcomes, for an event loop."""
    load_sample_ads(database, 3)
    with ThreadPoolExecutor(1) as thread:
        yield lambda max_waiting=10: OutcomeNotifier(
            lambda: OutcomeListener(database), never_polls, thread, max_waiting=max_waiting
        )


def run(test: Callable[[], object]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()  # type: ignore[misc]

    asyncio.run(in_time())


async def until_listening(event: asyncio.Event) -> None:
    """Everybody is woken once the connection is there; from then on only news wakes."""
    await event.wait()
    event.clear()


def test_an_outcome_or_a_cancelling_wakes_who_waits_for_it_and_nobody_else(
    news: Callable[..., OutcomeNotifier], database: Engine
) -> None:
    first, _, _ = submit(database, [1, 2, 3])

    def cancel() -> None:
        with transaction(database) as connection:
            assert cancelling.cancel(connection, 3)

    async def wait() -> None:
        heard = news()
        with (
            heard.subscribe(1) as one,
            heard.subscribe(1) as one_too,
            heard.subscribe(2) as other,
            heard.subscribe(3) as cancelled,
        ):
            await until_listening(one)
            for event in (one_too, other, cancelled):
                event.clear()
            await asyncio.to_thread(finish, database, first)
            await one.wait()
            await one_too.wait()
            assert not other.is_set()
            assert not cancelled.is_set()
            await asyncio.to_thread(cancel)
            await cancelled.wait()
            assert not other.is_set()
        heard.close()

    run(wait)


def test_more_outcomes_than_one_payload_holds_wake_everybody(
    news: Callable[..., OutcomeNotifier], database: Engine
) -> None:
    count = 1_200
    message_ids = submit(database, [1] * count)

    async def wait() -> None:
        heard = news()
        with heard.subscribe(1) as first, heard.subscribe(600) as middle, heard.subscribe(count) as last:
            await until_listening(first)
            middle.clear()
            last.clear()
            await asyncio.to_thread(finish, database, *message_ids)
            for event in (first, middle, last):
                await event.wait()
        heard.close()

    run(wait)


def test_when_the_connection_is_lost_everybody_is_woken_by_the_next_and_news_go_on(
    news: Callable[..., OutcomeNotifier], database: Engine
) -> None:
    [message_id] = submit(database)

    async def wait() -> None:
        heard = news()
        with heard.subscribe(1) as event:
            await until_listening(event)
            await asyncio.to_thread(
                execute, database, LISTENING.replace("pid FROM", "pg_terminate_backend(pid) FROM")
            )
            await until_listening(event)
            await asyncio.to_thread(finish, database, message_id)
            await event.wait()
        heard.close()

    run(wait)


def test_one_more_than_may_wait_is_told_so_and_who_is_done_makes_room(
    news: Callable[..., OutcomeNotifier],
) -> None:
    async def wait() -> None:
        heard = news(max_waiting=1)
        with heard.subscribe(1), pytest.raises(TooManyWaiting), heard.subscribe(2):
            pass
        with heard.subscribe(2):
            pass
        heard.close()

    run(wait)


def test_closing_wakes_everybody(news: Callable[..., OutcomeNotifier]) -> None:
    async def wait() -> None:
        heard = news()
        with heard.subscribe(1) as event:
            await until_listening(event)
            heard.close()
            await event.wait()
            assert heard.is_closed

    run(wait)


def test_a_payload_that_is_none_of_ours_is_ignored(
    news: Callable[..., OutcomeNotifier], database: Engine
) -> None:
    [message_id] = submit(database)

    async def wait() -> None:
        heard = news()
        with heard.subscribe(1) as event:
            await until_listening(event)
            for payload in ("x,-1,,1.5,²", "9" * 5_000):  # int() refuses the latter
                await asyncio.to_thread(execute, database, f"NOTIFY moderation_outcomes, '{payload}'")
            await asyncio.to_thread(finish, database, message_id)
            await event.wait()
        heard.close()

    run(wait)

"""django_dramatiq and dramatiq-crontab in a Django project, through its manage.py."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.broker.features.command_line import CommandLine
from tests.ecosystem.conftest import DEADLINE_S, Application
from tests.waiting import wait_until

SITE = Path(__file__).with_name("django_site")
TIMEOUT_MS = int(DEADLINE_S * 1000)
ORDERS = 24


class Site:
    """A Django project with a database of its own, which notes each status that a task's row has had."""

    def __init__(self, application: Application) -> None:
        self.application = application
        application.environment["PYTHONPATH"] += f":{SITE}"
        application.environment["DJANGO_SETTINGS_MODULE"] = "site_settings"
        self.manage("migrate")
        with closing(self._connect()) as database, database:
            database.execute("CREATE TABLE history (id, status)")
            for event in ("INSERT", "UPDATE"):
                database.execute(
                    f"CREATE TRIGGER note_{event} AFTER {event} ON django_dramatiq_task"
                    " BEGIN INSERT INTO history VALUES (new.id, new.status); END"
                )

    def manage(self, *command: str) -> str:
        return self.application.run("manage.py", *command, cwd=SITE)

    def shell(self, code: str) -> None:
        self.manage("shell", "--command", f"from orders.tasks import *\n{code}")

    def worker(self, name: str = "worker", *, threads: int = 2, **variables: str) -> CommandLine:
        return self.application.start(
            name, "manage.py", "rundramatiq", "--processes", "1", "--threads", str(threads),
            cwd=SITE, WORKER=name, **variables,
        )  # fmt: skip

    def statuses(self, actor: str) -> list[set[str]]:
        """For each message of an actor, what its status was at any time.

        Their order says little: a message may run before its sender has noted that it was enqueued.
        """
        found: dict[str, set[str]] = {}
        with closing(self._connect()) as database:
            for message_id, status in database.execute(
                "SELECT id, history.status FROM history JOIN django_dramatiq_task USING (id)"
                " WHERE actor_name = ?",
                [actor],
            ):
                found.setdefault(message_id, set()).add(status)
        return list(found.values())

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.application.home / "site.sqlite3", timeout=30)


@pytest.fixture
def site(application: Application) -> Site:
    return Site(application)


def test_rundramatiq_runs_what_the_project_sends_and_the_admin_sees_it_done(site: Site) -> None:
    site.worker().wait_for_boots(1)
    site.shell("ship.send(7); ship.send_with_options(args=(8,), delay=500)")
    wait_until(
        lambda: {entry["order"] for entry in site.application.journal.entries("shipped")} == {7, 8},
        deadline_s=DEADLINE_S,
        what="both orders to be shipped",
    )
    site.application.broker("default").join("default", timeout=TIMEOUT_MS)
    undelayed, delayed = sorted(site.statuses("ship"), key=lambda statuses: "delayed" in statuses)
    assert undelayed == {"enqueued", "running", "done"}
    assert delayed == {"delayed", "running", "done"}


def test_a_task_that_fails_for_good_is_a_dead_letter_although_the_settings_list_all_middleware(
    site: Site,
) -> None:
    site.worker().wait_for_boots(1)
    site.shell("send_receipt.send(9)")
    broker = site.application.broker("mail")
    broker.join("mail", timeout=TIMEOUT_MS)
    (dead_letter,) = broker.dead_letters("mail")
    assert dead_letter.message is not None
    assert (dead_letter.message.args, dead_letter.error_type) == ((9,), "ValueError")
    assert site.statuses("send_receipt") == [{"enqueued", "running", "failed"}]


def test_no_task_is_ever_seen_as_skipped_when_its_partition_moves_to_another_worker(site: Site) -> None:
    everything = {"dramatiq_queue_prefetch": str(2 * ORDERS)}
    site.shell(f"[pack.send(order) for order in range({ORDERS})]")
    site.worker("first", threads=1, **everything).wait_for_boots(1)
    packing = site.application.journal.entries
    wait_until(lambda: packing("packing", worker="first"), deadline_s=DEADLINE_S, what="the first to begin")
    second = site.worker("second", threads=1, **everything)
    wait_until(lambda: packing("packing", worker="second"), deadline_s=DEADLINE_S, what="the second to begin")
    (site.application.home / "gate").touch()
    site.application.broker("packing").join("packing", timeout=TIMEOUT_MS)
    second.check()
    assert site.statuses("pack") == [{"enqueued", "running", "done"}] * ORDERS
    assert {entry["worker"] for entry in packing("packing")} == {"first", "second"}


def test_the_crontab_command_sends_what_is_scheduled_again_and_again(site: Site) -> None:
    site.worker().wait_for_boots(1)
    site.application.start("crontab", "manage.py", "crontab", "--no-heartbeat", cwd=SITE)
    wait_until(
        lambda: len(site.application.journal.entries("counted")) >= 2,
        deadline_s=DEADLINE_S,
        what="two runs of a task that is due every second",
    )

"""Tasks that kill their worker, and what runs beside them; the command line is started again each time."""

from collections.abc import Callable

from tests.chaos.arena import Arena

KILLER = 1_000


def test_a_task_that_kills_its_worker_three_times_is_dead_lettered_and_no_other(
    arena: Callable[..., Arena],
) -> None:
    play = arena(queues=("work", "mail"), partitions=3)
    before = play.send("work", range(60), seconds=0.05)
    play.send("kill_worker", [KILLER])
    after = play.send("work", range(60, 120), seconds=0.05)
    mail = play.send("work", range(200, 320), queue="mail", seconds=0.05)

    supervisor = play.supervise(threads=8)
    play.wait_until_done(before | after | mail, deadline_s=90)

    # What runs when its process dies runs again, and what was done less than a commit interval ago.
    play.balance("a task that kills its worker at once", repeats_at_most=3 * 100, deadline_s=60)
    dead = play.dead_letters()
    assert dead.keys() == {KILLER}
    assert dead[KILLER].error_type == "PoisonMessage"
    assert supervisor.deaths == 3


def test_killers_in_two_queues_and_processes_are_both_found_and_no_other(
    arena: Callable[..., Arena],
) -> None:
    play = arena(queues=("work", "mail"), partitions=3)
    innocent = play.send("work", range(100), seconds=0.02)
    killers = play.send("kill_worker", [KILLER])
    killers |= play.send("kill_worker", [KILLER + 1], queue="mail", seconds=0.3)
    innocent |= play.send("work", range(200, 300), queue="mail", seconds=0.02)
    innocent |= play.send("work", range(300, 400), seconds=0.02)

    supervisor = play.supervise(processes=2, threads=4)
    play.wait_until_done(innocent, deadline_s=150)

    # A death repeats what four threads did in a commit interval, twelve tasks each, and what they were at.
    play.balance("two killers, two processes", repeats_at_most=6 * 60, deadline_s=60)
    dead = play.dead_letters()
    assert dead.keys() == killers
    assert {dead_letter.error_type for dead_letter in dead.values()} == {"PoisonMessage"}
    print(f"the command line was started again {supervisor.deaths} times")
    # Three each. A killer that still runs when its process has handed its partitions over, because the other
    # killer ended the command, takes one more: that crash is counted by nobody.
    assert supervisor.deaths <= 8

"""Random harm for as long as asked: ``python -m tests.chaos.soak --seed N --minutes M``.

Workers are stopped and killed, Kafka is frozen and killed, tasks fail, come back and kill their workers,
while messages are sent. It ends with the books; a seed repeats the sequence of harm, though not its timing.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from broker import EnqueueFailed
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.ports import free_port
from dev.stack import ROOT
from tests.chaos.arena import Arena, Supervisor

WORKERS = 3
BATCH = 100
#: What may wait while more is sent. Workers that drown are harmed at nothing but their start.
MAX_WAITING = 5_000
#: Between two harms: a group of workers has just come together, or still works.
MAX_PEACE_S = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # the harm is ours, its echo is no news
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes")
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    libs = fetch_apache_kafka(Path(os.environ.get("DEV_DIR", ROOT / ".dev")))
    kafka = ApacheKafkaServer(home / "kafka", libs=libs, port=free_port())
    try:
        kafka.start()
        soak(Soak(kafka, home, random.Random(arguments.seed)), arguments.minutes * 60)
    finally:
        kafka.kill()
        shutil.rmtree(home)


class Soak:
    """The servers, the workers and the dice."""

    def __init__(self, kafka: ApacheKafkaServer, home: Path, dice: random.Random) -> None:
        self.kafka = kafka
        self.dice = dice
        self.play = Arena(
            kafka.address, home, queues=("work", "mail"), partitions=4, enqueue_timeout_ms=5_000
        )
        self.workers: list[Supervisor] = [self.play.supervise(threads=4) for _ in range(WORKERS)]
        self.sent = 0
        self.harm = 0

    def send(self) -> None:
        """Send a batch; what of it Kafka did not acknowledge is not counted on."""
        kinds: list[tuple[str, dict[str, Any]]]
        kinds = [("work", {"seconds": 0.01}), ("work", {}), ("flaky", {"failures": 1}), ("fail", {})]
        actor, options = self.dice.choice(kinds)
        first, self.sent = self.sent, self.sent + BATCH
        try:
            self.play.send(
                actor, range(first, first + BATCH), queue=self.dice.choice(self.play.queues), **options
            )
            if self.dice.random() < 0.02:
                self.play.send("kill_worker", [10_000_000 + first], queue=self.dice.choice(self.play.queues))
        except EnqueueFailed as e:
            print(f"  {len(e.failures)} message(s) not acknowledged")

    def waiting(self) -> int:
        """How many messages have not been started yet."""
        return len(self.play.sent) - len(self.play.ledger.read().started)

    def do_harm(self) -> str:
        """Do one thing that a bad day brings."""
        self.harm += 1
        worker = self.dice.choice(self.workers).worker
        choice = self.dice.random()
        if choice < 0.35:
            worker.kill()
            return "killed a worker"
        if choice < 0.75:
            worker.ask_to_stop()
            return "stopped a worker"
        if choice < 0.9:
            self.kafka.pause()
            time.sleep(self.dice.uniform(0.5, 8))
            self.kafka.resume()
            return "froze Kafka"
        self.kafka.kill()
        time.sleep(self.dice.uniform(0, 8))
        self.kafka.start()
        return "killed Kafka"


def soak(run: Soak, seconds: float) -> None:
    over_at = time.monotonic() + seconds
    try:
        while time.monotonic() < over_at:
            for _ in range(run.dice.randrange(1, 12)):
                if run.waiting() < MAX_WAITING:
                    run.send()
            time.sleep(run.dice.uniform(0, MAX_PEACE_S))
            print(f"{run.do_harm()}; {len(run.play.sent)} sent")
        done = run.play.ledger.read().done
        print(f"the harm is over: {run.harm} times; {len(done)} done so far")
        # A worker's end repeats what ran, and what was done since its last commit.
        at_most = (run.harm + len(run.workers)) * 400
        run.play.balance("soak", repeats_at_most=at_most, deadline_s=300, bad_luck=True)
    finally:
        run.play.close()


if __name__ == "__main__":
    main()

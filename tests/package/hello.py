"""An application on the installed broker, checked with ``mypy --strict``."""

import os
from pathlib import Path

import dramatiq
import tenacity
from dramatiq_kafka_broker import KafkaBroker, retry_if_temporary

dramatiq.set_broker(
    KafkaBroker(os.environ["SERVERS"], namespace=os.environ["NAMESPACE"], session_timeout_ms=6_000)
)


@dramatiq.actor(retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), retry=retry_if_temporary))
def greet(name: str) -> None:
    Path(os.environ["GREETING"]).write_text(f"Hello, {name}!", encoding="utf-8")


if __name__ == "__main__":
    greet.send("world")

"""The lateness of messages when a steady number is due each second."""

from __future__ import annotations

import time

from bench.delays.crew import Crew
from bench.delays.ground import Ground, say

#: The pause between the last send and the first due time.
AHEAD_S = 10


def measure_lateness(ground: Ground, rate: int, seconds: int) -> None:
    """One worker, and its Kafka, on this machine; nothing else of this measurement runs meanwhile."""
    count = rate * seconds
    with Crew(ground) as crew:
        crew.wait_until_ready()
        already = ground.arrived()
        # A tenth of a second for each 1,000 sent messages.
        start_ms = int(time.time() * 1000) + AHEAD_S * 1000 + count // 10
        ground.send(count, lambda number: start_ms + number * 1000 // rate)
        time.sleep(max(0.0, start_ms / 1000 + seconds - time.time()))
        ground.wait_for(already + count)
    late_ms = sorted(
        record.timestamp - (start_ms + number * 1000 // rate) for number, record in ground.in_queue()
    )
    for share in (0.5, 0.99, 0.999, 1.0):
        say(f"late, at {rate} due a second, p{share * 100:g}, ms", late_ms[int(share * (len(late_ms) - 1))])
    say("earliest, ms", late_ms[0])

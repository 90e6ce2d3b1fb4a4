"""Load on an API: the maximum, through wrk, or a fixed rate."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.ground import SendingFailed

CONNECTIONS = 64
_SCRIPT = """
local number = 0
{authorization}
request = function()
  number = number + 1
  return wrk.format("POST", "{path}" .. (number % {ads} + 1))
end
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class Hammered:
    """The measurement of wrk. Only answers of 2xx count."""

    per_s: float
    p50_ms: float
    p99_ms: float


def missing_wrk() -> str:
    return "" if shutil.which("wrk") else "wrk is not installed (Debian: apt-get install wrk)"


def hammer(url: str, path: str, seconds: float, *, ads: int, home: Path, key: str = "") -> Hammered:
    """POST from 64 connections for a given time, with an API key if one is given."""
    script = home / "post.lua"
    authorization = f'wrk.headers["Authorization"] = "Bearer {key}"' if key else ""
    text = _SCRIPT.format(path=path, ads=ads, authorization=authorization)
    script.write_text(text, encoding="utf-8")
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    requests = re.search(r"(\d+) requests in", done.stdout)
    if not rate or not requests:
        raise SendingFailed(f"wrk: {done.stdout}{done.stderr}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    accepted = 1 - int(refused.group(1)) / int(requests.group(1)) if refused else 1.0
    return Hammered(float(rate.group(1)) * accepted, _at("50", done.stdout), _at("99", done.stdout))


def _at(percent: str, output: str) -> float:
    found = re.search(rf"\s{percent}%\s+([\d.]+)(us|ms|s|m)\s", output)
    if found is None:
        raise SendingFailed(f"wrk gave no {percent} %: {output}")
    return float(found.group(1)) * _UNITS[found.group(2)]


def submit_steadily(url: str, path: str, count: int, *, per_s: float, ads: int) -> None:
    """POST ``count`` ads at an even rate, independent of earlier answers."""
    asyncio.run(_submit(url, path, count, per_s, ads))


async def _submit(url: str, path: str, count: int, per_s: float, ads: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.TaskGroup() as tasks:
        began_s = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began_s + number / per_s - time.monotonic()))
            tasks.create_task(_post(client, f"{path}{number % ads + 1}"))


async def _post(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    answer.raise_for_status()

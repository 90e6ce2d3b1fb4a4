"""The machine and the programs of a measurement."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import psutil

LIBRARIES = (
    "dramatiq",
    "kafka-python",
    "celery",
    "taskiq",
    "taskiq-aio-kafka",
    "aiokafka",
    "pika",
    "redis",
)


def described(server_versions: Mapping[str, str]) -> dict[str, str]:
    """The machine and the programs, by name."""
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{f"{name} server": number for name, number in server_versions.items()},
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]

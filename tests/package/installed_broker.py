"""A pytest plugin: ``broker`` is the installed ``dramatiq_kafka_broker``, for tests that import ``broker``.

    python -m pytest -p tests.package.installed_broker tests/broker/contract

Run it where the folder ``broker/`` of this repository cannot be imported.
"""

import importlib
import pkgutil
import sys
import sysconfig
from pathlib import Path

import dramatiq_kafka_broker as installed

NAME = installed.__name__
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

for part in pkgutil.walk_packages(installed.__path__, prefix=f"{NAME}."):
    importlib.import_module(part.name)
for name, module in list(sys.modules.items()):
    if name == NAME or name.startswith(f"{NAME}."):
        sys.modules["broker" + name.removeprefix(NAME)] = module


def pytest_report_header() -> str:
    import broker

    place = Path(str(broker.__file__))
    assert place.is_relative_to(SITE_PACKAGES), f"{place} is not in {SITE_PACKAGES}"
    return f"broker: {place}"

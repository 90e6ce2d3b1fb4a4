"""The application of reporting_app for Dramatiq's command line, configured by its environment."""

from __future__ import annotations

import os

import dramatiq

from tests.broker.reports.reporting_app import declare, new_broker

broker = new_broker(os.environ["BOOTSTRAP_SERVERS"], os.environ["NAMESPACE"])
dramatiq.set_broker(broker)
declare(broker)

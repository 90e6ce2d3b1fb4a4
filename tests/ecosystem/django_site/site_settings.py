"""Settings of a Django project, as the documentation of django_dramatiq and dramatiq-crontab has them."""

import os
from pathlib import Path

SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django_dramatiq", "dramatiq_crontab", "orders"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["JOURNAL"]).with_name("site.sqlite3"),
        # Two processes that both read and then both write would otherwise lock each other out.
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
DRAMATIQ_BROKER = {
    "BROKER": "broker.KafkaBroker",
    "OPTIONS": {"url": os.environ["KAFKA_URL"]},
    "MIDDLEWARE": [
        "dramatiq.middleware.AgeLimit",
        "dramatiq.middleware.TimeLimit",
        "dramatiq.middleware.Callbacks",
        "dramatiq.middleware.Retries",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        "django_dramatiq.middleware.AdminMiddleware",
    ],
}

"""Celery on Redis."""

from bench.apps.celery_tasks import CeleryApp

_app = CeleryApp("redis", transport_options={})
celery = _app.celery
send, send_many, close = _app.send, _app.send_many, celery.close

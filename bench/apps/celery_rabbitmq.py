"""Celery on RabbitMQ, with its default of no publisher confirms."""

from bench.apps.celery_tasks import CeleryApp

_app = CeleryApp("pyamqp", login="guest:guest@", transport_options={})
celery = _app.celery
send, send_many, close = _app.send, _app.send_many, celery.close

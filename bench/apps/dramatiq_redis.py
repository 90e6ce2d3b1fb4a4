"""Dramatiq's Redis broker with its defaults."""

from dramatiq.brokers.redis import RedisBroker

from bench.apps.dramatiq_tasks import DramatiqApp
from bench.place import Place

_place = Place.from_env()
broker = RedisBroker(url=f"redis://{_place.address}/0")
_app = DramatiqApp(broker, queue_name=_place.queue)
send, send_many, send_delayed, send_due = _app.send, _app.send_many, _app.send_delayed, _app.send_due
close = _app.close

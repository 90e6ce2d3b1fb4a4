"""Dramatiq's RabbitMQ broker with publisher confirms: sending returns when RabbitMQ has answered."""

from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.apps.dramatiq_tasks import DramatiqApp
from bench.place import Place

_place = Place.from_env()
broker = RabbitmqBroker(url=f"amqp://guest:guest@{_place.address}/", confirm_delivery=True)
_app = DramatiqApp(broker, queue_name=_place.queue)
send, send_many, send_delayed, send_due = _app.send, _app.send_many, _app.send_delayed, _app.send_due
close = _app.close

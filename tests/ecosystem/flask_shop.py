"""A Flask application with an application factory, as flask-dramatiq's documentation has it."""

from __future__ import annotations

import os

from flask import Flask, current_app
from flask_dramatiq import Dramatiq

from tests.ecosystem.journal import note

dramatiq = Dramatiq()


@dramatiq.actor()
def ship(order: str) -> None:
    note("shipped", order=order, by=current_app.config["CARRIER"])


@dramatiq.actor(max_retries=0, queue_name="mail")
def send_receipt(order: str) -> None:
    raise ValueError(f"no address for {order}")


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["CARRIER"] = "Tortoise"
    app.config["DRAMATIQ_BROKER"] = "broker:KafkaBroker"
    app.config["DRAMATIQ_BROKER_URL"] = os.environ["KAFKA_URL"]
    dramatiq.init_app(app)

    @app.post("/orders/<order>")
    def buy(order: str) -> str:
        ship.send(order)
        send_receipt.send(order)
        return "bought"

    return app

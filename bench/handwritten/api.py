"""The API by hand: insert, send, await both, reply. ``python -m bench.handwritten.api PORT``

Tuned: uvloop and Sanic's own server, a pool of asyncpg with prepared statements, one round trip to
PostgreSQL, an idempotent producer that batches concurrent sends, no access log. Durable: the row is committed
and Kafka has acknowledged (acks=all) before the reply.
"""

from __future__ import annotations

import json
import os
import sys

import asyncpg
from aiokafka import AIOKafkaProducer
from sanic import Request, Sanic
from sanic.response import HTTPResponse
from sanic.response import json as as_json

INSERT = """
    INSERT INTO moderation_results (item_id, publish_after)
    SELECT id, NULL FROM items WHERE id = $1
    RETURNING id
"""
POOL = 20

app = Sanic("handwritten", configure_logging=False)
app.config.ACCESS_LOG = False


@app.before_server_start
async def connect(app: Sanic) -> None:
    app.ctx.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL)
    app.ctx.producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", enable_idempotence=True
    )
    app.ctx.topic = os.environ["KAFKA_NAMESPACE"] + "moderation"
    await app.ctx.producer.start()


@app.after_server_stop
async def disconnect(app: Sanic) -> None:
    await app.ctx.producer.stop()
    await app.ctx.pool.close()


@app.post("/async_predict")
async def async_predict(request: Request) -> HTTPResponse:
    try:
        item_id = int(request.args.get("item_id"))
    except (TypeError, ValueError):
        return as_json({"error": "item_id must be an integer"}, status=422)
    task_id = await app.ctx.pool.fetchval(INSERT, item_id)
    if task_id is None:
        return as_json({"error": "no such ad"}, status=404)
    message = json.dumps({"task_id": task_id, "item_id": item_id}).encode()
    await app.ctx.producer.send_and_wait(app.ctx.topic, message)
    return as_json({"task_id": task_id, "status": "pending", "message": "Moderation request accepted"})


@app.post("/noop")
async def noop(request: Request) -> HTTPResponse:
    return as_json({"task_id": 1, "status": "pending", "message": "Moderation request accepted"})


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), single_process=True, motd=False, access_log=False)

"""The worker by hand: read the ad, score it, write the verdict, one record at a time.

``python -m bench.handwritten.worker record`` commits its offset after each record, ``... poll`` after all
records of a poll. Tuned: one connection, prepared statements, no transaction around a single statement.
"""

from __future__ import annotations

import json
import os
import sys

import psycopg2
from kafka import KafkaConsumer

from scoring import Ad, load_model

READ = """
    PREPARE read_ad (integer) AS
    SELECT items.id, seller_id, is_verified_seller, name, description, category, images_qty
    FROM items JOIN users ON users.id = items.seller_id WHERE items.id = $1
"""
WRITE = """
    PREPARE write_verdict (boolean, double precision, integer) AS
    UPDATE moderation_results
    SET status = 'completed', is_violation = $1, probability = $2, processed_at = now()
    WHERE id = $3 AND status = 'pending'
"""


def main(commit_per: str) -> None:
    model = load_model(os.environ["MODEL_PATH"])
    database = psycopg2.connect(os.environ["DATABASE_URL"])
    database.autocommit = True
    cursor = database.cursor()
    cursor.execute(READ)
    cursor.execute(WRITE)
    consumer = KafkaConsumer(
        os.environ["KAFKA_NAMESPACE"] + "moderation",
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=os.environ["KAFKA_NAMESPACE"] + "handwritten",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=1 if commit_per == "record" else 500,
    )
    while True:
        records = consumer.poll(timeout_ms=1000)
        for batch in records.values():
            for record in batch:
                task = json.loads(record.value)
                cursor.execute("EXECUTE read_ad (%s)", (task["item_id"],))
                ad = cursor.fetchone()
                if ad is None:
                    continue  # it would have to become a failed row and a dead letter here
                [verdict] = model.score([Ad(*ad)])
                cursor.execute(
                    "EXECUTE write_verdict (%s, %s, %s)",
                    (verdict.is_violation, verdict.probability, task["task_id"]),
                )
        if records:
            consumer.commit()


if __name__ == "__main__":
    main(sys.argv[1])

"""Measures schedules on Apache Kafka: their lateness, and whether each occurrence is enqueued once."""

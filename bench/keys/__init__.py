"""Measures unique messages, and the limits of keys, on Apache Kafka."""

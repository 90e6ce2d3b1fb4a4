"""Measures delayed messages on Apache Kafka: their cost, their lateness and their survival."""

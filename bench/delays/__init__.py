"""Measures delayed messages on Apache Kafka: what they cost, how late they are, and what they outlive."""

"""The names of OpenTelemetry's semantic conventions for messaging, version 1.44.

https://opentelemetry.io/docs/specs/semconv/messaging/ . Their package for Python is a beta whose names
change, and this room needs a dozen of them.
"""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "messaging.system"
KAFKA = "kafka"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION_NAME = "messaging.destination.name"
DESTINATION_PARTITION_ID = "messaging.destination.partition.id"
CONSUMER_GROUP_NAME = "messaging.consumer.group.name"
MESSAGE_ID = "messaging.message.id"
KAFKA_OFFSET = "messaging.kafka.offset"
KAFKA_MESSAGE_KEY = "messaging.kafka.message.key"
ERROR_TYPE = "error.type"

SEND = "send"
PROCESS = "process"
SETTLE = "settle"

OPERATION_DURATION = "messaging.client.operation.duration"
PROCESS_DURATION = "messaging.process.duration"
SENT_MESSAGES = "messaging.client.sent.messages"
CONSUMED_MESSAGES = "messaging.client.consumed.messages"
#: The bounds that the conventions prescribe for durations, in seconds.
DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

#: Attributes of Dramatiq, which the conventions do not know.
ACTOR_NAME = "dramatiq.actor.name"
ATTEMPT = "dramatiq.attempt"
DELAY_MS = "dramatiq.delay_ms"

"""The version of the distribution ``dramatiq-kafka-broker``; the build reads it from here."""

VERSION = "0.1.0"

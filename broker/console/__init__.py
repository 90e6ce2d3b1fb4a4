"""The command line for operators: ``dramatiq-kafka-broker``, short ``dkb``, or ``python -m broker.console``.

It uses the public names of the broker only, and nothing of the broker imports it.
"""

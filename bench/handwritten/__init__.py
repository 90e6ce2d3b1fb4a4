"""A hand-written design on the same tables and topics, tuned as far as it allows: ``make bench-moderation``
compares the service with it.
"""

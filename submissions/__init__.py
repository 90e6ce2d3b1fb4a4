"""Submissions of ads: accepting, publishing, querying, redriving and explaining them.

This is the application layer. It knows neither HTTP nor Dramatiq's actors, and no module of it holds state
that is made at import: a process builds the objects that it needs from the settings.

- ``message``, ``outbox``, ``broker_factory``, ``database``, ``models`` and ``outage_log`` serve the API and
  the workers.
- ``application`` and the modules that it puts together serve the API and the commands; workers do not import
  them.
"""

"""The command with its verbs, in the order of its help."""

from __future__ import annotations

from . import (
    check_verbs,
    control_verbs,
    dead_letter_verbs,
    message_verbs,
    metrics_verb,
    plan_verb,
    queue_verbs,
    replay_verbs,
    schedule_verbs,
    task_verbs,
    topic_verbs,
    worker_verbs,
)
from .app import app as app
from .web import verb as web_verb

for module in (
    queue_verbs,
    worker_verbs,
    task_verbs,
    dead_letter_verbs,
    replay_verbs,
    control_verbs,
    schedule_verbs,
    message_verbs,
    check_verbs,
    metrics_verb,
    topic_verbs,
    plan_verb,
    web_verb,
):
    module.register(app)

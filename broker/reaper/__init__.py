"""The reaper: a process beside the workers of one ``dramatiq`` command.

It ends the group memberships of workers that died, so that their partitions move within a second and not
after the session timeout. See README.md.

This module imports nothing, and ``process`` no client of Kafka: a reaper listens to its workers first.
"""

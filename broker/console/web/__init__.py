"""The web console: what the command line shows and does, as pages of a browser.

From the top down: ``verb`` and ``serving`` start it; ``app`` has the routes; ``guard`` decides about each
request; ``pages`` and ``actions`` answer; ``collector`` reads Kafka in the background into ``store``.
"""

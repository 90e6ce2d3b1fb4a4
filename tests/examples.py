"""How many examples hypothesis tries of a property: all of them, and few in the fast loop."""

from hypothesis import settings

FAST, FULL = "fast", "full"
#: What the fast loop tries of a property that has a number of examples of its own, and of all others.
FAST_SHARE, FAST_EXAMPLES = 0.1, 20
AT_LEAST = 3

# A property is no measurement: hypothesis's deadline of 200 ms an example fails on a busy machine.
settings.register_profile(FULL, settings(), deadline=None)
settings.register_profile(FAST, settings(), deadline=None, max_examples=FAST_EXAMPLES)


def examples(full: int) -> int:
    """Return how many examples to try where all loops but the fast one try ``full``."""
    if settings.get_current_profile_name() != FAST:
        return full
    return min(full, max(AT_LEAST, round(full * FAST_SHARE)))

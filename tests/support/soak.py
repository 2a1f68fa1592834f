"""How often a fault test repeats itself: briefly in `make test`, as the fault table asks in `make soak`."""

import os


def rounds(short: int, long: int) -> int:
    """`long` when TAGWIRE_SOAK is set."""
    return long if os.environ.get("TAGWIRE_SOAK") else short

"""Ids for commands."""

from __future__ import annotations

import os
import random
import time

# Not the generator of the random module: an application may seed it, and then two processes would make the same ids.
_ids = random.Random()  # noqa: S311  # ids must differ, and need not be secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """Return a unique id. Ids grow with time, so that the rows of recent calls lie side by side."""
    return f"{time.time_ns() // 1_000_000:011x}{_ids.getrandbits(80):020x}"

"""The sockets that this process has open."""

from __future__ import annotations

import os
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")


def open_sockets() -> set[str]:
    """Returns every open socket, each under a name that the system gives it."""
    names = set()
    for descriptor in os.listdir(DESCRIPTORS):
        try:
            name = os.readlink(DESCRIPTORS / descriptor)
        except FileNotFoundError:
            # Closed meanwhile, such as the one that lists them.
            continue
        if name.startswith("socket:"):
            names.add(name)
    return names

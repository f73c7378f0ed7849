"""The modules that take seconds to import and hundreds of thousands of objects to hold. Call these in threads."""

from __future__ import annotations

import gc
import threading
from importlib import import_module
from types import ModuleType

_lock = threading.RLock()
_frozen = False


def import_heavy(name: str) -> ModuleType:
    """Imports a module that LlamaIndex comes with, one thread at a time.

    LlamaIndex's modules import each other in circles: a second thread may be handed a half-made one.

    Args:
        name: The module's full name.
    """
    with _lock:
        return import_module(name)


def freeze_imports() -> None:
    """Takes what is alive now out of the garbage collector's runs, once in a process.

    LlamaIndex's modules make each full run of the collector stop every thread for 100 ms and more, however little
    there is to collect. What is frozen is still freed by its reference count.
    """
    global _frozen
    with _lock:
        if not _frozen:
            _frozen = True
            gc.collect()
            gc.freeze()

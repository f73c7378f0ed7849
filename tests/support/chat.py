"""The chat example as a module, and what its transcripts say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "chat_workflow.py"


def load_example() -> ModuleType:
    """Returns the example, loaded anew."""
    spec = importlib.util.spec_from_file_location("chat_workflow", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def transcript(path: Path) -> list[tuple[str, str]]:
    """Returns who said what.

    Args:
        path: The file.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line["role"], line["content"]) for line in lines]

"""Contenders in processes of their own, in environments of their own where their versions clash with ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class ContenderError(RuntimeError):
    """A contender failed; the message is its own."""


def cache_folder() -> Path:
    """Where environments are kept from one run to the next."""
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "knowledge-base-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(requirements: Sequence[str]) -> Path:
    """The interpreter of an environment with some packages, made when it is not there; ours for none.

    Args:
        requirements: Packages with their versions.

    Raises:
        subprocess.CalledProcessError: They cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    name = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"peers-{name}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
            check=True,
            capture_output=True,
        )
        ready.touch()
    return python


class ContenderProcess:
    """One contender; it answers one command after the other.

    Args:
        module: Its module in ``contenders``.
        requirements: Packages that it needs an environment of its own for.
    """

    def __init__(self, module: str, requirements: Sequence[str] = ()) -> None:
        self._errors = (cache_folder() / f"{module}.log").open("w")
        self._process = subprocess.Popen(
            [str(environment(requirements)), "-W", "ignore", "-m", "tests.benchmarks.speed.child", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
        )
        self._module = module

    def open(self, url: str, folder: Path, size: int) -> None:
        """Opens it, on bases of the first so many passages."""
        self._told({"open": {"url": url, "folder": str(folder), "size": size}})

    def measure(self, what: str, callers: int, seconds: float) -> dict[str, float]:
        """Measures one way to ask; see ``load.measured``."""
        measured: dict[str, float] = self._told({"measure": what, "callers": callers, "seconds": seconds})
        return measured

    def recall(self, what: str, size: int) -> float:
        """The share of the nearest that it finds."""
        return float(self._told({"recall": what, "size": size}))

    def run(self, method: str, **arguments: Any) -> Any:
        """Calls a method of its own."""
        return self._told({"run": method, "with": arguments})

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _told(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise ContenderError(f"{self._module}: {answer['error']}")
        return answer["answer"]

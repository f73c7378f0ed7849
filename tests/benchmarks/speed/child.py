"""The process of one contender: it does what its standard input says, a JSON object a line.

``python -m tests.benchmarks.speed.child MODULE`` opens ``tests.benchmarks.speed.contenders.MODULE``. A command is
``{"open": …}``, ``{"measure": what, "callers": …, "seconds": …}``, ``{"recall": what, "size": …}``, or
``{"run": method, "with": {…}}``; each is answered by one line.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Protocol

from tests.benchmarks.speed.load import measured
from tests.benchmarks.speed.passages import QUESTIONS, TOP_K, Material

WARM_UP = 50


class Contender(Protocol):
    """What is measured."""

    async def ask(self, what: str, number: int) -> list[int]:
        """Asks a question in a way; returns the numbers of the passages found, where it is a search."""

    async def close(self) -> None:
        """Ends it."""


class Child:
    """One contender and its material.

    Args:
        module: The module of the contender.
    """

    def __init__(self, module: str) -> None:
        self._module = importlib.import_module(f"tests.benchmarks.speed.contenders.{module}")
        self._contender: Any = None
        self._material: Material | None = None

    async def obey(self, command: dict[str, Any]) -> Any:
        if "open" in command:
            return await self._open(command["open"])
        if "measure" in command:
            return await self._measure(command["measure"], command["callers"], command["seconds"])
        if "recall" in command:
            return await self._recall(command["recall"], command["size"])
        return await getattr(self._contender, command["run"])(**command["with"])

    async def close(self) -> None:
        if self._contender is not None:
            await self._contender.close()

    async def _open(self, where: dict[str, Any]) -> None:
        await self.close()
        self._material = Material(Path(where["folder"]))
        self._contender = await self._module.open(where["url"], self._material, where["size"])

    async def _measure(self, what: str, callers: int, seconds: float) -> dict[str, float]:
        contender = self._contender

        async def ask(number: int) -> None:
            await contender.ask(what, number % QUESTIONS)

        await measured(ask, min(callers, WARM_UP), seconds / 5)
        return await measured(ask, callers, seconds)

    async def _recall(self, what: str, size: int) -> float:
        assert self._material is not None
        nearest = self._material.nearest(size)
        right = 0
        for number in range(QUESTIONS):
            found = await self._contender.ask(what, number)
            right += len(set(found) & set(nearest[number].tolist()))
        return right / (QUESTIONS * TOP_K)


async def main() -> None:
    child = Child(sys.argv[1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What a library prints must not stand among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"answer": await child.obey(json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    await child.close()


if __name__ == "__main__":
    asyncio.run(main())

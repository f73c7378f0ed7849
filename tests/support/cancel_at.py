"""A call that is cancelled at exactly one of the places where it, or a task that it started, waits."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

Moment = Literal["waiting", "answered"]
MOMENTS: tuple[Moment, ...] = ("waiting", "answered")
"""As soon as it waits; or when what it waits for is there, before it has seen it."""


class CancelAt:
    """Counts where a call waits and cancels it at one of these places.

    Args:
        place: The place, counted from 0.
        moment: When, there.
    """

    def __init__(self, place: int, moment: Moment) -> None:
        self.reached = False
        """Whether the call came to that place at all."""
        self._place = place
        self._moment = moment
        self._victim: asyncio.Task[Any] | None = None

    async def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Runs the call and returns its reply, or what it raised."""
        loop = asyncio.get_running_loop()
        with _watched_tasks(loop):
            token = _watching.set(self)
            try:
                self._victim = asyncio.ensure_future(call)
            finally:
                _watching.reset(token)
            return (await asyncio.gather(self._victim, return_exceptions=True))[0]

    async def watched(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Does what the coroutine does."""
        return await self._watch(coroutine)

    @types.coroutine
    def _watch(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        step = coroutine.send
        argument: Any = None
        while True:
            try:
                waits_for = step(argument)
            except StopIteration as done:
                return done.value
            self._waits(waits_for)
            try:
                step, argument = coroutine.send, (yield waits_for)
            except BaseException as error:
                step, argument = coroutine.throw, error

    def _waits(self, waits_for: Any) -> None:
        self._place -= 1
        if self._place != -1:
            return
        assert self._victim is not None
        self.reached = True
        if self._moment == "answered" and isinstance(waits_for, asyncio.Future):
            waits_for.add_done_callback(lambda _: self._cancel())
        else:
            self._cancel()

    def _cancel(self) -> None:
        assert self._victim is not None
        self._victim.cancel()


_watching: ContextVar[CancelAt | None] = ContextVar("watching", default=None)


@contextmanager
def _watched_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        context = options.get("context")
        watching = _watching.get() if context is None else context.get(_watching)
        if watching is None or not asyncio.iscoroutine(coroutine):
            return asyncio.Task(coroutine, loop=loop, **options)
        task = asyncio.Task(watching.watched(coroutine), loop=loop, **options)
        # One that is cancelled before its first step never gets to it.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    before = loop.get_task_factory()
    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(before)

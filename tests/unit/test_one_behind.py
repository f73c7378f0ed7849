"""Work that goes on beside the next piece: one at a time, and nothing of it is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from knowledge_base.connection.one_behind import OneBehind


class Work:
    """A piece of work that ends when it is told to, with an error where it has one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_end = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.ended = False
        self.interrupted = 0
        self._error = error

    @property
    def began(self) -> bool:
        return self.has_begun.is_set()

    async def __call__(self) -> None:
        self.has_begun.set()
        await self.may_end.wait()
        if self._error is not None:
            raise self._error
        self.ended = True

    def interrupt(self) -> None:
        self.interrupted += 1


async def one_after_the_other(*works: Work, error: Exception | None = None) -> None:
    async with OneBehind() as behind:
        for work in works:
            await behind.begin(work, work.interrupt)
        if error is not None:
            raise error


async def test_work_goes_on_beside_its_caller_and_is_waited_for_in_the_end() -> None:
    work = Work()

    async with OneBehind() as behind:
        await behind.begin(work, work.interrupt)
        await asyncio.sleep(0)
        assert work.began
        assert not work.ended
        work.may_end.set()

    assert work.ended
    assert not work.interrupted


async def test_next_piece_waits_for_the_one_before() -> None:
    first, second = Work(), Work()
    second.may_end.set()

    async with OneBehind() as behind:
        await behind.begin(first, first.interrupt)
        asyncio.get_running_loop().call_later(0.01, first.may_end.set)
        await behind.begin(second, second.interrupt)
        assert first.ended
        assert not second.began

    assert second.ended


async def test_error_is_raised_by_the_next_piece_which_does_not_begin() -> None:
    failing, following = Work(ValueError("no")), Work()
    failing.may_end.set()

    with pytest.raises(ValueError, match="no"):
        await one_after_the_other(failing, following)

    assert failing.interrupted == 1
    assert following.interrupted == 1
    assert not following.began


async def test_error_of_the_last_piece_is_raised_in_the_end() -> None:
    failing = Work(ValueError("no"))
    failing.may_end.set()

    with pytest.raises(ValueError, match="no"):
        await one_after_the_other(failing)

    assert failing.interrupted == 1


async def test_caller_that_fails_ends_the_work_even_before_it_began() -> None:
    work = Work()

    with pytest.raises(KeyError):
        await one_after_the_other(work, error=KeyError())

    assert not work.began
    assert work.interrupted == 1


async def test_cancelled_caller_ends_the_work() -> None:
    work = Work()

    task = asyncio.create_task(one_after_the_other(work, Work()))
    await work.has_begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not work.ended
    assert work.interrupted == 1

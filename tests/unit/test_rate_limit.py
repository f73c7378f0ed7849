"""The rate limit: two buckets, in which order they are drawn from, and who is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base.embedding.rate_limit import RateLimit
from knowledge_base.errors import OverloadedError
from tests.support.instant_loop import instantly
from tests.support.scripted_send import turns

LONG = 10_000.0


def new_limit(requests: int | None, tokens: int | None) -> RateLimit:
    return RateLimit(requests, tokens, asyncio.get_running_loop().time)


class Takers:
    """Those who take, and when each was let through."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.taken: list[tuple[str, float]] = []

    def take(self, name: str, tokens: int = 1, *, urgent: bool = False, within: float = LONG) -> asyncio.Task[None]:
        async def one() -> None:
            await self.limit.take(tokens, urgent=urgent, within=within)
            self.taken.append((name, round(asyncio.get_running_loop().time(), 6)))

        return asyncio.create_task(one())

    async def take_in_turn(self, *names: str, urgent: bool = False) -> list[asyncio.Task[None]]:
        tasks = []
        for name in names:
            tasks.append(self.take(name, urgent=urgent))
            await turns()
        return tasks


async def test_without_limits_nothing_waits() -> None:
    limit = new_limit(None, None)

    for _ in range(10_000):
        await limit.take(10**9, urgent=False, within=0.0)


def test_minutes_worth_is_there_at_once_and_then_comes_evenly() -> None:
    async def test() -> None:
        takers = Takers(new_limit(60, None))
        await asyncio.gather(*(takers.take(f"{number}") for number in range(63)))

        assert [at for _, at in takers.taken] == [0.0] * 60 + [1.0, 2.0, 3.0]

    instantly(test)


def test_bucket_never_holds_more_than_a_minutes_worth() -> None:
    async def test() -> None:
        takers = Takers(new_limit(2, None))
        await asyncio.gather(takers.take("a"), takers.take("b"))
        await asyncio.sleep(3_600)
        await asyncio.gather(*(takers.take(name) for name in "cdef"))

        assert [at for _, at in takers.taken] == [0.0, 0.0, 3_600.0, 3_600.0, 3_630.0, 3_660.0]

    instantly(test)


def test_tokens_are_limited_too() -> None:
    async def test() -> None:
        takers = Takers(new_limit(None, 600))
        await asyncio.gather(takers.take("a", 600), takers.take("b", 10), takers.take("c", 50))

        assert takers.taken == [("a", 0.0), ("b", 1.0), ("c", 6.0)]

    instantly(test)


def test_scarcer_of_both_decides() -> None:
    async def test() -> None:
        takers = Takers(new_limit(60, 60))
        await asyncio.gather(takers.take("a", 60), takers.take("b", 5))
        assert takers.taken[-1] == ("b", 5.0)

        await asyncio.sleep(60)
        await asyncio.gather(*(takers.take("c", 0) for _ in range(60)))
        await takers.take("d", 0)
        assert takers.taken[-1] == ("d", 66.0)

    instantly(test)


def test_request_of_more_than_a_minutes_worth_waits_for_a_full_bucket_and_empties_it() -> None:
    async def test() -> None:
        takers = Takers(new_limit(None, 60))
        await takers.take("a", 30)
        await takers.take("huge", 10**9)
        await takers.take("b", 1)

        assert takers.taken == [("a", 0.0), ("huge", 30.0), ("b", 31.0)]

    instantly(test)


def test_each_kind_goes_in_order_and_the_urgent_first() -> None:
    async def test() -> None:
        takers = Takers(new_limit(60, None))
        await asyncio.gather(*(takers.take("") for _ in range(60)))
        takers.taken.clear()
        tasks = await takers.take_in_turn("p1", "p2", "p3")
        await asyncio.sleep(1.5)
        tasks += await takers.take_in_turn("u1", "u2", urgent=True)
        await asyncio.gather(*tasks)

        assert takers.taken == [("p1", 1.0), ("u1", 2.0), ("u2", 3.0), ("p2", 4.0), ("p3", 5.0)]

    instantly(test)


def test_who_comes_when_others_wait_does_not_pass_them() -> None:
    async def test() -> None:
        takers = Takers(new_limit(None, 60))
        await takers.take("", 60)
        takers.taken.clear()
        big = takers.take("big", 30)
        await asyncio.sleep(10)
        small = takers.take("small", 1)
        await asyncio.gather(big, small)

        assert takers.taken == [("big", 30.0), ("small", 31.0)]

    instantly(test)


def test_who_would_wait_too_long_is_refused_at_once_and_told_when() -> None:
    async def test() -> None:
        takers = Takers(new_limit(1, None))
        await takers.take("a")

        with pytest.raises(OverloadedError) as caught:
            await takers.take("b", within=59.0)

        assert asyncio.get_running_loop().time() == 0.0
        assert caught.value.retry_after == 60.0
        assert "rate limit" in str(caught.value)
        await takers.take("c", within=61.0)
        assert takers.taken[-1] == ("c", 60.0)

    instantly(test)


def test_who_waits_behind_others_for_too_long_is_refused_in_time() -> None:
    async def test() -> None:
        takers = Takers(new_limit(60, None))
        await asyncio.gather(*(takers.take("") for _ in range(60)))
        tasks = await takers.take_in_turn("a", "b", "c")
        late = takers.take("late", within=2.5)

        with pytest.raises(OverloadedError) as caught:
            await late
        await asyncio.gather(*tasks)

        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 0
        assert takers.taken[60:] == [("a", 1.0), ("b", 2.0), ("c", 3.0)]

    instantly(test)


@pytest.mark.parametrize("gone", ["p1", "p2", "u1", "u2"])
@pytest.mark.parametrize("when", [0.0, 0.5, 1.0, 1.5])
def test_who_leaves_the_queue_holds_up_nobody(gone: str, when: float) -> None:
    async def test() -> None:
        takers = Takers(new_limit(60, None))
        await asyncio.gather(*(takers.take("") for _ in range(60)))
        takers.taken.clear()
        names = ["p1", "p2", "p3", "u1", "u2", "u3"]
        tasks: dict[str, asyncio.Task[Any]] = {name: takers.take(name, urgent=name[0] == "u") for name in names}
        await asyncio.sleep(when)
        tasks[gone].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

        order = ["u1", "u2", "u3", "p1", "p2", "p3"]
        assert [name for name, _ in takers.taken] == [name for name in order if not tasks[name].cancelled()]
        assert len(takers.taken) >= len(order) - 1
        assert [at for _, at in takers.taken] == [float(number + 1) for number in range(len(takers.taken))]

    instantly(test)


Takes = st.lists(
    st.tuples(
        st.integers(0, 20),  # comes
        st.integers(0, 40),  # tokens
        st.booleans(),  # urgent
        st.sampled_from([0.0, 1.0, 5.0, LONG]),  # within
        st.none() | st.integers(0, 20),  # leaves
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(takes=Takes, requests=st.sampled_from([None, 6, 60]), tokens=st.sampled_from([None, 30, 120]))
def test_whoever_comes_and_goes_the_limit_holds_and_nobody_is_forgotten(
    takes: list[tuple[int, int, bool, float, int | None]], requests: int | None, tokens: int | None
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        limit = new_limit(requests, tokens)
        taken: list[tuple[float, int]] = []

        async def take(comes: int, cost: int, urgent: bool, within: float, leaves: int | None) -> None:
            await asyncio.sleep(comes)
            began = loop.time()
            try:
                async with asyncio.timeout(leaves):
                    await limit.take(cost, urgent=urgent, within=within)
            except (OverloadedError, TimeoutError):
                assert loop.time() <= began + within + 1e-6
                return
            taken.append((loop.time(), cost))

        await asyncio.gather(*(take(*one) for one in takes))
        for number, (since, _) in enumerate(taken):
            for until, _ in taken[number:]:
                within = [cost for at, cost in taken if since <= at <= until]
                if requests is not None:
                    assert len(within) <= requests * (1 + (until - since) / 60) + 1e-6
                if tokens is not None:
                    assert sum(min(cost, tokens) for cost in within) <= tokens * (1 + (until - since) / 60) + 1e-6
        await asyncio.sleep(60)
        await limit.take(10**9, urgent=False, within=0.0)

    instantly(test)

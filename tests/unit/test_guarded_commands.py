"""A sweep over all that the driver offers: no command, pipeline or module gets past the guard."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from redis import exceptions as driver
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline

from knowledge_base.connection.breaker import CircuitBreaker
from knowledge_base.connection.guard import RedisGuard
from knowledge_base.connection.guarded_client import GuardedPipeline, GuardedRedis
from knowledge_base.settings import BreakerSettings
from tests.support.fake_redis import SilentConnection

_inside: ContextVar[bool] = ContextVar("inside_the_guard", default=False)

MODULES = ("bf", "cf", "cms", "ft", "json", "tdigest", "topk", "ts")
REFUSED = ("client", "monitor", "pubsub")
NO_EXCHANGE = {
    *("bitfield", "get_connection_kwargs", "get_encoder", "get_retry", "load_external_module", "lock", "monitor"),
    *("pipeline", "register_script", "set_response_callback", "set_retry", "sentinel"),
    *("aclose", "close", "from_pool", "from_url", "initialize", "parse_response", "reset"),
    # The driver refuses these itself.
    *("client_tracking", "command_docs", "command_info", "debug_segfault", "failover", "hello", "latency_doctor"),
    *(
        "latency_graph",
        "latency_histogram",
        "memory_doctor",
        "memory_help",
        "script_debug",
        "transaction",
        "unwatch",
        "watch",
    ),
}
"""What never talks to the server."""


class RecordingGuard(RedisGuard):
    """A guard that lets one see who is inside."""

    async def run(self, command: str, exchange: Callable[[], Awaitable[Any]], *, repeatable: bool = False) -> Any:
        token = _inside.set(True)
        try:
            return await super().run(command, exchange, repeatable=repeatable)
        finally:
            _inside.reset(token)


class RefusingConnection(SilentConnection):
    """A connection to a server that knows no command."""

    async def read_response(self, **_: Any) -> Any:
        if self.sent[-1] == ("UNWATCH",):
            return "OK"
        raise driver.ResponseError("unknown command")


class RecordingPool(BlockingConnectionPool):
    """A pool that remembers who took a connection from outside the guard."""

    def __init__(self) -> None:
        super().__init__(connection_class=RefusingConnection)  # type: ignore[arg-type]
        self.taken = 0
        self.escaped = 0

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        self.taken += 1
        self.escaped += not _inside.get()
        return await super().get_connection()


def recorded() -> tuple[GuardedRedis, RecordingPool]:
    breaker = CircuitBreaker("Redis", BreakerSettings(failures=10_000))
    pool = RecordingPool()
    return GuardedRedis(pool, RecordingGuard("main", 50, 2.0, breaker, lambda: None)), pool


class Arguments:
    """Guesses at what the driver's methods take, until one is good enough to be sent."""

    CANDIDATES: tuple[Any, ...] = ("a", 1, ["a", "b"], {"a": 1}, [("a", 1)], True, b"a")
    EXPLICIT: ClassVar[dict[str, dict[str, Any]]] = {
        "bzmpop": {"timeout": 1, "numkeys": 1, "keys": ["a"], "min": True},
        "client_kill_filter": {"_id": 1},
        "client_reply": {"reply": "ON"},
        "geoadd": {"name": "a", "values": [1, 1, "a"]},
        "geosearch": {"name": "a", "member": "b", "radius": 1, "unit": "m"},
        "geosearchstore": {"dest": "a", "name": "b", "member": "b", "radius": 1, "unit": "m"},
        "hset": {"name": "a", "key": "b", "value": 1},
        "stralgo": {"algo": "LCS", "value1": "a", "value2": "b"},
        "tfunction_list": {"verbose": 1},
        "xclaim": {"name": "a", "groupname": "b", "consumername": "c", "min_idle_time": 1, "message_ids": ["1-0"]},
        "xtrim": {"name": "a", "maxlen": 1},
        "zmpop": {"num_keys": 1, "keys": ["a"], "min": True},
    }

    @classmethod
    def of(cls, method: Callable[..., Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """Positional and keyword arguments to try, one after the other."""
        if method.__name__ in cls.EXPLICIT:
            yield [], cls.EXPLICIT[method.__name__]
            return
        parameters = inspect.signature(method).parameters.values()
        required = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        for candidate in cls.CANDIDATES:
            positional = [candidate for one in required if one.kind is not one.KEYWORD_ONLY]
            yield positional, {one.name: candidate for one in required if one.kind is one.KEYWORD_ONLY}


async def finished(outcome: Any) -> None:
    """Runs what a method gave to its end."""
    if isinstance(outcome, Pipeline):
        await outcome.execute()
    elif inspect.isawaitable(outcome):
        await outcome
    elif hasattr(outcome, "__aiter__"):
        async for _ in outcome:
            break


async def takes_a_connection(pool: RecordingPool, method: Callable[..., Any]) -> bool:
    """Calls a method with one guess after the other, until it talks to the server."""
    before = pool.taken
    for positional, keywords in Arguments.of(method):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await finished(method(*positional, **keywords))
        if pool.taken > before:
            return True
    return False


def methods(thing: Any) -> list[str]:
    """The names of everything that can be called on a thing."""
    return [name for name in dir(type(thing)) if not name.startswith("_") and callable(getattr(type(thing), name))]


async def test_no_command_of_the_driver_escapes_the_guard() -> None:
    client, pool = recorded()

    silent = [name for name in methods(client) if not await takes_a_connection(pool, getattr(client, name))]

    assert pool.escaped == 0
    assert set(silent) <= NO_EXCHANGE | {*REFUSED, *MODULES, "graph"}
    assert pool.taken > 300


@pytest.mark.parametrize("watching", [False, True])
async def test_no_command_escapes_the_guard_in_a_pipeline(watching: bool) -> None:
    client, pool = recorded()

    for name in sorted(set(methods(client.pipeline())) - set(REFUSED)):
        pipeline = client.pipeline()
        pipeline.watching = watching
        await takes_a_connection(pool, getattr(pipeline, name))
        await pipeline.reset()

    assert pool.escaped == 0
    assert pool.taken > 300


@pytest.mark.parametrize("name", MODULES)
def test_commands_of_a_module_go_through_the_client(name: str) -> None:
    client, _ = recorded()

    module = getattr(client, name)()

    assert module.execute_command.__self__ is client


@pytest.mark.parametrize("name", ["ft", "json", "ts"])
def test_pipeline_of_a_module_is_guarded_or_refused(name: str) -> None:
    client, _ = recorded()

    try:
        pipeline = getattr(client, name)().pipeline()
    except TypeError:
        return

    assert isinstance(pipeline, GuardedPipeline)

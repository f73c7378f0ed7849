"""A ``redis.asyncio.Redis`` whose every command, pipeline and script passes the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline

from knowledge_base.connection.deadline import bounded
from knowledge_base.connection.guard import RedisGuard

READ_ONLY = frozenset(
    {
        *("ECHO", "EXISTS", "GET", "INFO", "MGET", "PING", "PTTL", "SCAN", "STRLEN", "TIME", "TTL", "TYPE"),
        *("FT._LIST", "FT.AGGREGATE", "FT.CONFIG", "FT.INFO", "FT.PROFILE", "FT.SEARCH", "FT.TAGVALS"),
        *("HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSCAN"),
        *("LLEN", "LRANGE", "SCARD", "SISMEMBER", "SMEMBERS", "SSCAN", "XLEN", "XRANGE", "XREVRANGE"),
        *("ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZSCAN", "ZSCORE"),
    }
)
"""Commands that may be repeated whatever became of the first time."""


def _is_read_only(arguments: Sequence[Any]) -> bool:
    return str(arguments[0]).upper() in READ_ONLY


def _refuse(what: str) -> NoReturn:
    raise TypeError(f"{what} holds a connection without a bound; the guarded client does not offer it")


class _OnlyGuarded:
    """Refuses what would lead around the guard."""

    _guard: RedisGuard

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> GuardedPipeline:
        """Returns a pipeline within the same guard.

        Args:
            transaction: Whether the commands run as one transaction.
            shard_hint: Passed on to the driver.
        """
        return GuardedPipeline(self._guard, self, transaction, shard_hint)

    def client(self) -> NoReturn:
        """Refuses: a client bound to one connection would leave the guard.

        Raises:
            TypeError: Always.
        """
        _refuse("client()")

    def pubsub(self, **_: Any) -> NoReturn:
        """Refuses: a subscription waits without a bound.

        Raises:
            TypeError: Always.
        """
        _refuse("pubsub()")

    def monitor(self) -> NoReturn:
        """Refuses: monitoring waits without a bound.

        Raises:
            TypeError: Always.
        """
        _refuse("monitor()")

    def _module(self, commands: Any) -> Any:
        # The driver's modules make pipelines of their own, on the bare pool.
        commands.pipeline = lambda *_, **__: _refuse("a module's pipeline()")
        return commands

    def ft(self, index_name: str = "idx") -> Any:
        """Returns the search commands, without their pipeline.

        Args:
            index_name: The index.
        """
        return self._module(super().ft(index_name))  # type: ignore[misc]

    def json(self, *args: Any, **options: Any) -> Any:
        """Returns the JSON commands, without their pipeline.

        Args:
            *args: Passed on to the driver.
            **options: Passed on to the driver.
        """
        return self._module(super().json(*args, **options))  # type: ignore[misc]

    def ts(self) -> Any:
        """Returns the time series commands, without their pipeline."""
        return self._module(super().ts())  # type: ignore[misc]


class GuardedPipeline(_OnlyGuarded, Pipeline):  # type: ignore[misc]
    """A pipeline that is sent within the guard."""

    def __init__(self, guard: RedisGuard, client: Any, transaction: bool, shard_hint: str | None) -> None:
        Pipeline.__init__(self, client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._guard = guard
        self._guarded = False

    async def execute(self, raise_on_error: bool = True, *, repeatable: bool = False) -> list[Any]:
        """Sends everything that was queued; see ``RedisGuard.run`` for the errors.

        Args:
            raise_on_error: Whether the first reply that is an error is raised.
            repeatable: Whether doing all of it twice does what doing it once does; always so for what only reads.
        """
        if not self.command_stack and not self.scripts:
            return []
        stack, scripts = list(self.command_stack), set(self.scripts)
        only_reads = not scripts and all(_is_read_only(arguments) for arguments, _ in stack)

        def exchange() -> Awaitable[Any]:
            # The driver empties both, also when it fails.
            self.command_stack, self.scripts = list(stack), set(scripts)
            return super(GuardedPipeline, self).execute(raise_on_error)

        try:
            replies: list[Any] = await self._within_guard("pipeline", exchange, repeatable=repeatable or only_reads)
        finally:
            self.command_stack, self.scripts = [], set()
        return replies

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends one command at once, to load scripts; see ``RedisGuard.run`` for the errors."""

        def exchange() -> Awaitable[Any]:
            return super(GuardedPipeline, self).immediate_execute_command(  # type: ignore[no-untyped-call]
                *args, **options
            )

        if self._guarded:
            return await exchange()
        return await self._within_guard(str(args[0]), exchange)

    async def watch(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Refuses: between watching and executing a connection is held for as long as the caller likes.

        Raises:
            TypeError: Always; use a script.
        """
        _refuse("watch()")

    async def reset(self) -> None:
        """Gives the connection back, bounded like a command."""
        await bounded(super().reset(), self._guard.timeout)  # type: ignore[no-untyped-call]

    async def _within_guard(
        self, command: str, exchange: Callable[[], Awaitable[Any]], *, repeatable: bool = False
    ) -> Any:
        self._guarded = True
        try:
            return await self._guard.run(command, exchange, repeatable=repeatable)
        finally:
            self._guarded = False
            if self.connection is not None:
                # The driver forgets it when loading a script ends early; a reply may be on its way still.
                connection, self.connection = self.connection, None
                await connection.disconnect(nowait=True)
                await self.connection_pool.release(connection)


class GuardedRedis(_OnlyGuarded, Redis):  # type: ignore[misc]
    """The client that everything in this package talks to Redis with.

    Args:
        pool: Where it takes its connections from.
        guard: What bounds each exchange.
    """

    def __init__(self, pool: BlockingConnectionPool, guard: RedisGuard) -> None:
        Redis.__init__(self, connection_pool=pool)
        self._guard = guard

    async def execute_command(self, *args: Any, repeatable: bool = False, **options: Any) -> Any:
        """Sends one command; see ``RedisGuard.run`` for the errors.

        Args:
            *args: The command and its arguments.
            repeatable: Whether doing it twice does what doing it once does; always so for what only reads.
            **options: Passed on to the driver.
        """
        return await self._guard.run(
            str(args[0]),
            lambda: super(GuardedRedis, self).execute_command(*args, **options),  # type: ignore[no-untyped-call]
            repeatable=repeatable or _is_read_only(args),
        )

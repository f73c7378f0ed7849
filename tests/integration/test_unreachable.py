"""A Redis that is not there, not yet there, or not what it must be."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import (
    InvalidInputError,
    KnowledgeBaseError,
    PermissionDeniedError,
    ServerRequirementError,
    UnavailableError,
)
from knowledge_base.settings import BreakerSettings
from tests.support.facts import found
from tests.support.polling import eventually
from tests.support.server import RedisServer, free_port

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

IMPATIENT = BreakerSettings(reset_after=0.2)
PASSWORD = "hunter2-sesame"


async def iterate(kb: KnowledgeBase) -> list[Any]:
    return [fact async for fact in kb.iter_facts()]


CALLS: dict[str, Callable[[KnowledgeBase], Any]] = {
    "start": lambda kb: kb.start(),
    "store": lambda kb: kb.store_fact("words"),
    "get": lambda kb: kb.get_fact("f"),
    "list": lambda kb: kb.get_fact(),
    "iterate": iterate,
    "search": lambda kb: kb.search("words"),
    "search text": lambda kb: kb.search("words", mode="text"),
    "search vector": lambda kb: kb.search("words", mode="vector"),
    "update": lambda kb: kb.update_fact("f", content="new"),
    "delete": lambda kb: kb.delete_fact("f"),
    "delete many": lambda kb: kb.delete_facts({"tags": "t"}),
    "history": lambda kb: kb.get_fact_history("f"),
    "stats": lambda kb: kb.get_stats(),
    "details": lambda kb: kb.get_detailed_stats(),
}


@asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
async def black_hole() -> AsyncIterator[str]:
    """The URL of something that takes connections and never says a word."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1_024):
                pass
        finally:
            writer.close()

    async with listening(say_nothing) as url:
        yield url


@pytest.fixture
async def web_server() -> AsyncIterator[str]:
    """The URL of something that speaks another protocol."""

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
        writer.close()

    async with listening(refuse) as url:
        yield url


async def fails_in_time(call: Callable[[KnowledgeBase], Any], kb: KnowledgeBase) -> None:
    begun = time.monotonic()
    with pytest.raises(UnavailableError) as down:
        await call(kb)
    assert time.monotonic() - begun < 3.0
    assert down.value.retryable is True


@pytest.mark.parametrize("name", CALLS)
async def test_nobody_listening_is_unavailable_within_three_seconds(open_kb: Any, name: str) -> None:
    await fails_in_time(CALLS[name], open_kb(redis_url=f"redis://127.0.0.1:{free_port()}/0"))


async def test_missing_socket_is_unavailable_within_three_seconds(open_kb: Any, new_server: Any) -> None:
    await fails_in_time(CALLS["store"], open_kb(redis_url=new_server().url))


@pytest.mark.parametrize("name", ["store", "search"])
async def test_silence_is_unavailable_within_three_seconds(open_kb: Any, black_hole: str, name: str) -> None:
    await fails_in_time(CALLS[name], open_kb(redis_url=black_hole))


async def test_unknown_host_is_unavailable(open_kb: Any) -> None:
    await fails_in_time(CALLS["store"], open_kb(redis_url="redis://no-such-host.invalid:6379/0"))


async def test_something_that_is_no_redis_is_unavailable(open_kb: Any, web_server: str) -> None:
    await fails_in_time(CALLS["store"], open_kb(redis_url=web_server))


@pytest.mark.parametrize("tcp", [True, False], ids=["port", "socket"])
async def test_base_works_as_soon_as_redis_is_there(open_kb: Any, new_server: Any, tcp: bool) -> None:
    server: RedisServer = new_server(tcp=tcp)
    kb = open_kb(redis_url=server.url, breaker=IMPATIENT)
    for call in (CALLS["start"], CALLS["store"], CALLS["search"]):
        with pytest.raises(UnavailableError):
            await call(kb)
    down = await kb.health()

    server.start()

    async def stored() -> bool:
        try:
            return bool((await kb.store_fact("penguins swim", fact_id="f"))["fact_id"] == "f")
        except UnavailableError:
            return False

    await eventually(stored)
    assert (down["live"], down["ready"]) == (True, False)
    assert await found(kb, "penguins") == ["f"]
    assert (await kb.health())["ready"] is True
    await kb.close()


async def test_health_of_an_unreachable_base_is_an_answer(open_kb: Any, black_hole: str) -> None:
    kb = open_kb(redis_url=black_hole)

    health = await kb.health()

    assert (health["live"], health["ready"]) == (True, False)
    assert "redis" in [name for name, part in health["parts"].items() if not part["ok"]]


async def test_closing_an_unreachable_base_is_quick(open_kb: Any, black_hole: str) -> None:
    kb = open_kb(redis_url=black_hole)
    calling = asyncio.create_task(kb.store_fact("words"))
    await asyncio.sleep(0)

    await asyncio.wait_for(kb.close(), 10)

    with pytest.raises(KnowledgeBaseError):
        await calling


def whole_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__) + repr(vars(error))


@pytest.fixture
def locked_server(new_server: Any) -> RedisServer:
    """Asks for a password."""
    server: RedisServer = new_server(
        tcp=True, password=PASSWORD, acl=("reader on >readerpw ~kb:* +@read +@connection",)
    )
    return server.start()


async def test_right_password_opens_the_server(open_kb: Any, locked_server: RedisServer) -> None:
    kb = open_kb(redis_url=locked_server.url)

    assert (await kb.store_fact("words"))["status"] == "success"
    assert PASSWORD not in repr(kb)
    assert PASSWORD not in str(await kb.health())
    await kb.close()


@pytest.mark.parametrize("given", ["wrong-swordfish", None], ids=["wrong", "missing"])
async def test_password_refused_is_a_typed_error_without_the_password(
    open_kb: Any, locked_server: RedisServer, given: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "knowledge_base")
    kb = open_kb(redis_url=locked_server.url_for(None, given))

    for call in (CALLS["store"], CALLS["search"], CALLS["get"]):
        with pytest.raises((PermissionDeniedError, ServerRequirementError)) as refused:
            await call(kb)
        assert refused.value.retryable is False
        assert "swordfish" not in whole_text(refused.value)
        assert PASSWORD not in whole_text(refused.value)
    health = await kb.health()

    assert health["ready"] is False
    assert "swordfish" not in str(health) + caplog.text


async def test_user_who_may_not_write_is_denied(open_kb: Any, locked_server: RedisServer) -> None:
    kb = open_kb(redis_url=locked_server.url_for("reader", "readerpw"))

    with pytest.raises(PermissionDeniedError) as denied:
        await kb.store_fact("the secret recipe")

    assert "readerpw" not in whole_text(denied.value)
    assert "secret" not in str(denied.value)


async def test_server_without_search_is_refused_with_what_to_do(open_kb: Any, new_server: Any) -> None:
    kb = open_kb(redis_url=new_server(search=False).start().url)

    for call in (CALLS["store"], CALLS["search"], CALLS["search text"], CALLS["search vector"]):
        with pytest.raises(ServerRequirementError) as refused:
            await call(kb)
        assert any(word in str(refused.value) for word in ("Redis 8", "Redis Stack"))
        assert refused.value.retryable is False
    await kb.close()


def test_url_of_another_protocol_is_refused_at_once(settings: Any) -> None:
    with pytest.raises(InvalidInputError):
        type(settings)(redis_url="http://127.0.0.1:6379")

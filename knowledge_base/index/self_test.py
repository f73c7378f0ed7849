"""``SelfTest``: whether this server scores several words within a filter right.

RediSearch 2.10 loses words of a section when it skips ahead in a union under a filter. A server that does not may be
asked in a form that takes it half the time. The test is made on a scratch index of its own, beside the first searches,
once for each version of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping
from contextvars import Context
from typing import Any

from redis.exceptions import RedisError

from knowledge_base.connection.guarded_client import GuardedRedis
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.errors import KnowledgeBaseError
from knowledge_base.index.schema import SEPARATOR
from knowledge_base.index.text_query import Form, bm25_query
from knowledge_base.keyspace import SELF_TEST_PREFIX

logger = logging.getLogger(__name__)

SECTIONS = 300
"""More than a block of the server's lists of words holds, which is a hundred."""

WORDS = 24
SCRATCH_SECONDS = 60
"""When the server itself takes the scratch index and its sections away, should nobody else do so."""

SAME = 1e-6
"""Difference of equal scores."""

SCOPES = (
    "@tags:{all|all}=>{$weight:0}",
    "@tags:{half|half}=>{$weight:0}",
    "@tags:{all|all}=>{$weight:0} @seq:[10 250]=>{$weight:0}",
    "@tags:{all|all}=>{$weight:0} -@tags:{third}=>{$weight:0}",
)

_verdicts: dict[str, bool] = {}


class SelfTest:
    """Tests the server in the background; until it is known, and where it cannot be known, the safe form is used.

    Args:
        manager: The connections.
    """

    def __init__(self, manager: AsyncRedisManager) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._passed = False

    @property
    def passed(self) -> bool:
        """Whether the server is known to score a filtered union right."""
        return self._passed

    def begin(self) -> None:
        """Begins the test, unless it was begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context(), name="kb-self-test")

    async def finished(self) -> bool:
        """Waits for the test, and returns whether the server passed it."""
        self.begin()
        assert self._task is not None
        await asyncio.shield(self._task)
        return self._passed

    async def close(self) -> None:
        """Ends a test that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            client = await self._manager.main()
            version = await _version(client)
            if version is None or version not in _verdicts:
                verdict = await _scores_are_equal(client)
                if version is not None:
                    _verdicts[version] = verdict
            else:
                verdict = _verdicts[version]
        except (RedisError, KnowledgeBaseError) as error:
            logger.debug("the self-test could not be made", extra={"reason": type(error).__name__})
            return
        self._passed = verdict
        logger.debug("the self-test was made", extra={"version": version, "filtered_unions_right": verdict})


async def _version(client: GuardedRedis) -> str | None:
    try:
        info: Mapping[str, Any] = await client.info()
    except (RedisError, KnowledgeBaseError):
        return None
    modules = info.get("modules", [])
    versions = [f"{one['name']} {one['ver']}" for one in ([modules] if isinstance(modules, dict) else modules)]
    return " ".join([str(info.get("valkey_version") or info.get("redis_version")), *sorted(versions)])


async def _scores_are_equal(client: GuardedRedis) -> bool:
    prefix = f"{SELF_TEST_PREFIX}{uuid.uuid4().hex}"
    index_name = f"{prefix}:index"
    await client.execute_command(
        *("FT.CREATE", index_name, "ON", "HASH", "PREFIX", 1, f"{prefix}:section:", "TEMPORARY", SCRATCH_SECONDS),
        *("NOOFFSETS", "NOHL", "STOPWORDS", 0, "SCHEMA", "stem", "TEXT", "NOSTEM"),
        *("tags", "TAG", "SEPARATOR", SEPARATOR, "CASESENSITIVE", "seq", "NUMERIC"),
    )
    try:
        writing = client.pipeline(transaction=False)
        for number in range(SECTIONS):
            key = f"{prefix}:section:{number}"
            writing.hset(key, mapping=_section(number))
            writing.expire(key, SCRATCH_SECONDS)
        await writing.execute()
        for scope in SCOPES:
            for first in range(0, WORDS, 3):
                stems = {f"w{(first + step) % WORDS}": 1 + step % 2 for step in range(2 + first % 7)}
                safe = await _scores(client, index_name, stems, scope, "distributed")
                short = await _scores(client, index_name, stems, scope, "joined")
                if safe.keys() != short.keys() or any(abs(safe[key] - short[key]) > SAME for key in safe):
                    return False
    finally:
        # Who may not drop it leaves it to the server, which does so soon.
        with contextlib.suppress(RedisError, KnowledgeBaseError):
            await client.execute_command("FT.DROPINDEX", index_name, "DD")
    return True


def _section(number: int) -> dict[str, str | int]:
    words = [f"w{word}" for word in range(WORDS) for _ in range((number * (word + 3) // 7) % 5 % 3)]
    tags = ["all", *(["half"] if number % 2 else []), *(["third"] if number % 3 == 0 else [])]
    return {"stem": " ".join(words) or "none", "tags": SEPARATOR.join(tags), "seq": number}


async def _scores(
    client: GuardedRedis, index_name: str, stems: Mapping[str, int], scope: str, form: Form
) -> dict[str, float]:
    reply = await client.execute_command(
        *("FT.SEARCH", index_name, bm25_query(stems, scope, form), "VERBATIM", "NOCONTENT", "WITHSCORES"),
        *("SCORER", "BM25STD", "LIMIT", 0, SECTIONS, "DIALECT", 2),
    )
    return dict(zip(reply[1::2], map(float, reply[2::2]), strict=True))

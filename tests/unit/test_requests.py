"""Requests to the scripts: the same wherever they are made, and long ones are made in worker threads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from knowledge_base.connection.workload import WorkloadThreads, job
from knowledge_base.facts.draft import FactDraft, content_digest, draft_fact
from knowledge_base.facts.parts import INLINE_VALUES, FactParts, labels
from knowledge_base.facts.records import FactRecord
from knowledge_base.facts.requests import INLINE_CHARACTERS, FactRequests
from knowledge_base.settings import Limits
from tests.support.fact_store import GENERATION, NAMESPACE, parts

NOW = 1_000_000
LONG = "long " * (INLINE_CHARACTERS // 5)
MANY_VALUES = {"n": list(range(INLINE_VALUES + 1))}
ARGUMENTS: dict[str, Any] = {"tags": ["a", "é"], "source": "web", "principals": ["ann"], "expires_in": 60}


class Making:
    """Makes requests, and notes the thread that asks for the time: the one that makes them."""

    def __init__(self) -> None:
        self.threads = WorkloadThreads("encoding", threads=1, waiting=10)
        self.requests = FactRequests(self.threads, keep_history=3, lease=30.0, now=self.now)
        self.made_by: list[threading.Thread] = []
        self.meanwhile: Callable[[], object] = int

    def now(self) -> int:
        self.made_by.append(threading.current_thread())
        self.meanwhile()
        return NOW

    @property
    def is_made_in_loop(self) -> bool:
        (thread,) = self.made_by
        return thread is threading.current_thread()

    async def store(self, content: str, metadata: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        draft, made = drafted(content, metadata, **arguments)
        return dict(json.loads(await self.requests.store(GENERATION, draft, made)))

    async def update(self, content: str, metadata: dict[str, Any]) -> dict[str, Any]:
        old = record("old", {})
        made = FactParts([], [], labels(metadata, [], None, []), "digest")
        new = old._replace(content=content, metadata=metadata, revision="2-abc-1")
        return dict(json.loads(await self.requests.update(GENERATION, old, new, made, ["ann"])))


@pytest.fixture
async def making() -> AsyncIterator[Making]:
    one = Making()
    yield one
    await one.threads.close(5)


def drafted(content: str, metadata: dict[str, Any], **arguments: Any) -> tuple[FactDraft, FactParts]:
    draft = draft_fact(content, metadata, namespace=NAMESPACE, limits=Limits(), fact_id="f1", **arguments)
    own = labels(draft.metadata, draft.tags, draft.source, draft.principals)
    return draft, parts(content[:5], 2, own, content_digest(content, draft.principals))


def record(content: str, metadata: dict[str, Any]) -> FactRecord:
    return FactRecord("f1", content, metadata, [], None, [], None, 1, "1-abc-1", "7", 0, 0, None, indexed=True)


LARGE = [(LONG + "!", {}), ("short", MANY_VALUES), ("short", {"note": "x" * 200, "n": [[0]] * INLINE_VALUES})]


async def test_short_request_is_made_on_the_event_loop(making: Making) -> None:
    await making.store("short", {"n": [1, 2]})

    assert making.is_made_in_loop


async def test_short_change_is_made_on_the_event_loop(making: Making) -> None:
    await making.update("short", {"n": [1, 2]})

    assert making.is_made_in_loop


@pytest.mark.parametrize(("content", "metadata"), LARGE, ids=["content", "values", "nested values"])
async def test_long_request_is_made_in_a_thread(making: Making, content: str, metadata: dict[str, Any]) -> None:
    await making.store(content, metadata)

    assert not making.is_made_in_loop


@pytest.mark.parametrize(("content", "metadata"), LARGE, ids=["content", "values", "nested values"])
async def test_long_change_is_made_in_a_thread(making: Making, content: str, metadata: dict[str, Any]) -> None:
    await making.update(content, metadata)

    assert not making.is_made_in_loop


async def test_long_passages_count_like_a_long_content(making: Making) -> None:
    draft, made = drafted("short", {})

    await making.requests.store(GENERATION, draft, made._replace(passages=[LONG]))

    assert not making.is_made_in_loop


async def test_event_loop_runs_on_while_a_long_request_is_made(making: Making) -> None:
    goes_on = threading.Event()
    making.meanwhile = lambda: goes_on.wait(20) or pytest.fail("the event loop stood still")

    storing = making.store(LONG + "!", {})
    asyncio.get_running_loop().call_soon(goes_on.set)

    assert (await storing)["content"] == LONG + "!"


async def test_job_makes_its_requests_in_threads_of_its_own(making: Making) -> None:
    await making.store(LONG + "!", {})
    with job():
        await making.store(LONG + "!", {})

    assert [thread.name for thread in making.made_by] == ["kb-encoding", "kb-encoding for jobs"]


@pytest.mark.parametrize("content", ["short é “quoted” \\ \u007f\n", LONG + "!"], ids=["inline", "in a thread"])
async def test_request_tells_the_script_all_of_a_fact(making: Making, content: str) -> None:
    request = await making.store(content, {"n": [1.5, None], "é": "/"}, **ARGUMENTS)

    digest = content_digest(content, ["ann"])
    nonce = request.pop("nonce")
    assert len(nonce) == 12
    assert request == {
        "root": "kb:{acme}:",
        "number": "1",
        "now": str(NOW),
        "fact_id": "f1",
        "digest": digest,
        "content": content,
        "metadata": '{"n":[1.5,null],"é":"/"}',
        "tags": '["a","é"]',
        "source": "web",
        "principals": '["ann"]',
        "document": "",
        "expires_at": str(NOW + 60_000),
        "revision": f"1-{digest[:12]}-2",
        "labels": {"principals": "ann", "tags": "a\x1fé", "source": "web", "meta": 'n=1.5\x1fn=null\x1f\\u00e9="/"'},
        "passages": [f"{content[:5]} 0", f"{content[:5]} 1"],
        "sections": [f"stems {content[:5]}"],
        "due": str(NOW + 30_000),
        "generation": {"number": "1", "model": "stub", "dimension": "4", "build": "1"},
    }


@pytest.mark.parametrize("content", ["short", LONG + "!"], ids=["inline", "in a thread"])
async def test_change_tells_the_script_what_it_is_based_on(making: Making, content: str) -> None:
    request = await making.update(content, {"a": "é"})

    assert {key: request[key] for key in ("base_version", "base_seq", "callers", "content", "metadata", "digest")} == {
        "base_version": "1",
        "base_seq": "7",
        "callers": ["ann"],
        "content": content,
        "metadata": '{"a":"é"}',
        "digest": "digest",
    }
    assert (request["revision"], request["keep_history"], request["due"]) == ("2-abc-1", 3, str(NOW + 30_000))


async def test_each_request_has_a_name_of_its_own(making: Making) -> None:
    first, second = [await making.store("short", {}) for _ in range(2)]

    assert first["nonce"] != second["nonce"]

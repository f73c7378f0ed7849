"""Documents while something is away, ends, or happens at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import (
    VersionConflictError,
)
from knowledge_base.settings import ChunkingSettings, EmbeddingSettings
from tests.support.documents import RIVERS, manual, markdown
from tests.support.facts import found, hit_ids
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control
    from tests.support.embeddings import StubEmbedding

SHORT = ChunkingSettings(passage_tokens=64, overlap_tokens=16)
UNCACHED = EmbeddingSettings(cache_size=0)
"""So that what is embedded again is seen."""


@pytest.fixture
async def kb(open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding) -> KnowledgeBase:
    base = open_kb(stub_embedding, chunking=SHORT, embedding=UNCACHED)
    await base.start()
    return base


async def test_document_is_found_by_words_while_the_model_is_away(
    kb: KnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    await kb.store_fact("the namespace exists")
    stub_embedding.become("failing")

    added = await kb.add_document(markdown(manual(parts=8)), document_id="d")
    by_words = await found(kb, "topic101", mode="text")
    stub_embedding.become("well")

    assert (added["status"], added["indexed"]) == ("success", False)
    assert by_words == ["d"]

    async def indexed() -> bool:
        return (await kb.get_document("d"))["indexed"]

    assert await eventually(indexed, within=60.0)
    assert (await found(kb, "Sentence 3 of paragraph 101 tells about topic101.", mode="vector"))[0] == "d"


async def test_old_version_is_found_until_the_new_one_is_whole(
    kb: KnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    lines = manual(parts=4)
    await kb.add_document(markdown(lines), document_id="d")
    stub_embedding.become("hanging")
    embedded = len(stub_embedding.texts)

    changing = asyncio.create_task(kb.add_document(markdown([*lines, "A giraffe was seen."]), document_id="d"))
    await eventually(lambda: len(stub_embedding.texts) > embedded)
    meanwhile = await kb.search("topic101", mode="text"), await kb.get_document("d")
    nothing_yet = await found(kb, "giraffe", mode="text")
    stub_embedding.become("well")
    changed = await changing

    assert hit_ids(meanwhile[0]) == ["d"]
    assert meanwhile[1]["version"] == 1
    assert nothing_yet == []
    assert (changed["version"], changed["indexed"]) == (2, True)
    assert await found(kb, "giraffe", mode="text") == ["d"]


async def test_writers_at_the_same_time_leave_one_whole_version(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    texts = [markdown([*manual(parts=3), f"Writer {number} was here."]) for number in range(6)]

    results = await asyncio.gather(*(kb.add_document(text, document_id="d") for text in texts), return_exceptions=True)
    document = await kb.get_document("d")

    done = [result for result in results if isinstance(result, dict)]
    assert done
    assert document["version"] == len(done) == max(result["version"] for result in done)
    assert all(isinstance(result, dict | VersionConflictError) for result in results)
    assert len([key for key in control.keys(namespace) if ":passage:" in key]) == document["passages"]
    assert (await kb.get_stats())["passages"] == document["passages"]


async def test_what_a_crash_left_is_removed_when_it_counts_as_given_up(
    kb: KnowledgeBase, namespace: str, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge_base.documents.repository import DocumentRepository
    from knowledge_base.documents.staging import DocumentStaging

    await kb.add_document(RIVERS, document_id="d")
    before = control.keys(namespace)

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(DocumentRepository, "switch", die)
        patched.setattr(DocumentStaging, "drop", die)
        with pytest.raises(asyncio.CancelledError):
            await kb.add_document(markdown(manual()), document_id="e")
    staged = f"kb:{{{namespace}}}:staged"
    left = control.keys(namespace) - before
    services = await kb._services.start()
    early = await services.staging.collect(namespace)
    (member,) = control.run("ZRANGE", staged, 0, -1)
    control.run("ZADD", staged, 1, member)

    collected = await services.staging.collect(namespace)

    assert len([key for key in left if ":passage:" in key]) > 5
    assert early == 0
    assert collected == 1
    assert control.keys(namespace) - before <= {f"kb:{{{namespace}}}:leftovers"}
    assert await found(kb, "Rhine") == ["d"]


async def test_revision_that_counts_as_given_up_is_written_anew(
    kb: KnowledgeBase, namespace: str, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowledge_base.documents.repository import DocumentRepository

    services = await kb._services.start()
    switch = DocumentRepository.switch
    calls = 0

    async def too_late(self: DocumentRepository, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            staged = f"kb:{{{namespace}}}:staged"
            (member,) = control.run("ZRANGE", staged, 0, -1)
            control.run("ZADD", staged, 1, member)
            await services.staging.collect(namespace)
        await switch(self, *args)

    monkeypatch.setattr(DocumentRepository, "switch", too_late)

    added = await kb.add_document(markdown(manual()), document_id="d")

    assert (calls, added["status"], added["indexed"]) == (2, "success", True)
    assert len([key for key in control.keys(namespace) if ":passage:" in key]) == added["passages"]


async def test_last_signs_are_not_needed_when_it_is_stored(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await kb.add_document(markdown(manual()), document_id="d")

    assert control.run("ZCARD", f"kb:{{{namespace}}}:staged") == 0
    assert control.run("ZCARD", f"kb:{{{namespace}}}:pending") == 0
    assert control.run("ZCARD", f"kb:{{{namespace}}}:inserts") == 0


async def test_many_who_add_the_same_document_at_once_all_succeed(kb: KnowledgeBase) -> None:
    texts = [f"# Atlas\n\nWords of writer {number}." for number in range(12)]

    added = await asyncio.gather(*(kb.add_document(text, document_id="same") for text in texts))

    assert sorted(one["version"] for one in added) == list(range(1, 13))

"""Documents out of a base and into another one, and made anew from their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.connection.workload import job
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.errors import VersionConflictError
from knowledge_base.settings import ChunkingSettings, EmbeddingSettings
from tests.support.documents import LAKES, RIVERS, manual, markdown, write_tree
from tests.support.facts import found

if TYPE_CHECKING:
    from pathlib import Path

    from knowledge_base import KnowledgeBase
    from knowledge_base.index.schema import Generation
    from tests.conftest import OpenKnowledgeBase
    from tests.support.embeddings import StubEmbedding

SHORT = ChunkingSettings(passage_tokens=64, overlap_tokens=16)
UNCACHED = EmbeddingSettings(cache_size=0)
"""So that what is embedded again is seen."""


@pytest.fixture
async def kb(open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding) -> KnowledgeBase:
    base = open_kb(stub_embedding, chunking=SHORT, embedding=UNCACHED)
    await base.start()
    return base


async def archive_of(kb: KnowledgeBase) -> DocumentArchive:
    return (await kb._services.start()).document_archive


async def generation_of(kb: KnowledgeBase, namespace: str | None = None) -> Generation:
    return await (await kb._services.start()).indexer.generation(namespace or kb.settings.namespace)


async def entries_of(kb: KnowledgeBase, namespace: str | None = None, *, vectors: bool = True) -> list[dict[str, Any]]:
    generation = await generation_of(kb, namespace)
    page = await (await archive_of(kb)).read(generation.namespace, 0.0, 100, vectors_of=generation if vectors else None)
    return page.entries


async def test_documents_are_the_same_in_another_namespace(
    kb: KnowledgeBase, stub_embedding: StubEmbedding, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"a.md": f"# A\n\n{RIVERS}", "b.txt": LAKES})
    await kb.ingest_path(tmp_path, tags=["geo"])
    await kb.add_document(markdown(manual()), document_id="m", metadata={"n": {"deep": [1]}}, principals=["user:ann"])
    await kb.add_document(markdown(manual(parts=3)), document_id="m", principals=["user:ann"])
    other = f"{kb.settings.namespace}-other"
    generation, archive = await generation_of(kb, other), await archive_of(kb)
    entries = await entries_of(kb)
    embedded = len(stub_embedding.texts)

    with job():
        outcomes = [await archive.restore(generation, entry) for entry in entries]

    assert outcomes == ["restored"] * 3
    assert len(stub_embedding.texts) == embedded
    assert await entries_of(kb, other) == entries
    assert entries[-1]["version"] == 2
    assert await found(kb, "Rhine", namespace=other, mode="vector")
    document = await kb.get_document("m", namespace=other, principals=["user:ann"])
    assert document["text"] == markdown(manual(parts=3)).strip()
    assert document["indexed"] is True


async def test_restored_files_are_unchanged_for_the_next_ingestion(kb: KnowledgeBase, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a.md": f"# A\n\n{RIVERS}", "b.txt": LAKES})
    await kb.ingest_path(tmp_path)
    other = f"{kb.settings.namespace}-other"
    generation, archive = await generation_of(kb, other), await archive_of(kb)
    for entry in await entries_of(kb):
        await archive.restore(generation, entry)

    result = await kb.ingest_path(tmp_path, namespace=other)

    assert (result["duplicates"], result["succeeded"]) == (2, 0)


async def test_documents_without_vectors_are_embedded(kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await kb.add_document(RIVERS, document_id="d")
    entries = await entries_of(kb, vectors=False)
    await kb.delete_document("d")
    embedded = len(stub_embedding.texts)

    await (await archive_of(kb)).restore(await generation_of(kb), entries[0])

    assert "vectors" not in entries[0]
    assert len(stub_embedding.texts) == embedded + 1
    assert await found(kb, "Rhine", mode="vector") == ["d"]


async def test_pages_go_on_where_the_one_before_ended(kb: KnowledgeBase) -> None:
    for number in range(5):
        await kb.add_document(f"Document {number}", document_id=f"d{number}")
    archive = await archive_of(kb)
    ids: list[str] = []
    seq: float | None = 0.0

    while seq is not None:
        page = await archive.read(kb.settings.namespace, seq, 2)
        ids += [entry["id"] for entry in page.entries]
        seq = page.next_seq

    assert ids == [f"d{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("on_conflict", "outcome", "version"),
    [("skip", "skipped", 2), ("newer", "skipped", 2), ("overwrite", "restored", 1)],
)
async def test_document_that_is_there_already(kb: KnowledgeBase, on_conflict: Any, outcome: str, version: int) -> None:
    await kb.add_document(RIVERS, document_id="d")
    (entry,) = await entries_of(kb)
    await kb.add_document(LAKES, document_id="d")

    restored = await (await archive_of(kb)).restore(await generation_of(kb), entry, on_conflict=on_conflict)

    document = await kb.get_document("d")
    assert (restored, document["version"]) == (outcome, version)
    assert document["text"] == (RIVERS if outcome == "restored" else LAKES)


async def test_older_document_gives_way_to_a_newer_one(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d")
    await kb.add_document(LAKES, document_id="d")
    (entry,) = await entries_of(kb)
    await kb.delete_document("d")
    await kb.add_document(RIVERS, document_id="d")
    entry["updated_at"] = "2999-01-01T00:00:00+00:00"

    restored = await (await archive_of(kb)).restore(await generation_of(kb), entry, on_conflict="newer")

    assert restored == "restored"
    assert (await kb.get_document("d"))["text"] == LAKES


async def test_conflicts_can_be_errors(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d")
    (entry,) = await entries_of(kb)
    archive, generation = await archive_of(kb), await generation_of(kb)
    await kb.add_document(LAKES, document_id="d")

    with pytest.raises(VersionConflictError):
        await archive.restore(generation, entry, on_conflict="error")
    with pytest.raises(VersionConflictError):
        await archive.restore(generation, {**entry, "principals": ["user:eve"]}, on_conflict="error")


async def test_same_document_is_no_conflict(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d", metadata={"n": 1}, tags=["a"])
    (entry,) = await entries_of(kb)

    assert await (await archive_of(kb)).restore(await generation_of(kb), entry, on_conflict="error") == "skipped"


async def test_document_is_restored_with_its_principals_whoever_sees_it_now(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d", principals=["user:ann"])
    (entry,) = await entries_of(kb)
    await kb.delete_document("d", principals=["user:ann"])
    await kb.add_document(LAKES, document_id="d")
    archive, generation = await archive_of(kb), await generation_of(kb)

    skipped = await archive.restore(generation, entry, on_conflict="skip")
    restored = await archive.restore(generation, entry, on_conflict="overwrite")

    assert (skipped, restored) == ("skipped", "restored")
    assert await kb.list_documents() == []
    assert (await kb.get_document("d", principals=["user:ann"]))["text"] == RIVERS


async def test_dry_run_changes_nothing(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d")
    (entry,) = await entries_of(kb)
    await kb.delete_document("d")

    outcome = await (await archive_of(kb)).restore(await generation_of(kb), entry, dry_run=True)

    assert outcome == "restored"
    assert await kb.list_documents() == []


async def test_document_is_made_anew_as_is_configured_now(
    kb: KnowledgeBase, open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    added = await kb.add_document(markdown(manual()), document_id="d", tags=["geo"])
    before = await kb.get_document("d")
    longer = open_kb(stub_embedding, chunking=ChunkingSettings(passage_tokens=128))

    remade = await (await archive_of(longer)).remake(await generation_of(longer), "d")

    after = await kb.get_document("d")
    assert remade is True
    assert after["passages"] < added["passages"]
    assert {**after, "passages": 0} == {**before, "passages": 0}
    assert await found(kb, "topic101", mode="text") == ["d"]
    assert await (await archive_of(kb)).remake(await generation_of(kb), "nothing") is False

"""Adding, reading, listing, changing and deleting documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import (
    DocumentNotFoundError,
    FactNotFoundError,
    InvalidInputError,
    PermissionDeniedError,
    VersionConflictError,
)
from knowledge_base.settings import ChunkingSettings, EmbeddingSettings
from tests.support.documents import LAKES, RIVERS, manual, markdown
from tests.support.facts import found, hit_ids

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


async def test_document_comes_back_whole(kb: KnowledgeBase, namespace: str) -> None:
    text = "# Waters\n\n## Rivers\n\n" + RIVERS + "\n\n## Lakes\n\n" + LAKES + "\n"

    added = await kb.add_document(
        text, document_id="waters", metadata={"lang": "en"}, tags=["geo"], source="atlas", title="All waters"
    )
    document = await kb.get_document("waters")

    assert added["status"] == "success"
    assert (added["document_id"], added["version"], added["indexed"]) == ("waters", 1, True)
    assert added["embedded"] == added["passages"] == document["passages"] >= 2
    assert document["text"] == text.strip()
    assert (document["title"], document["media_type"]) == ("All waters", "text/markdown")
    assert (document["metadata"], document["tags"], document["source"]) == ({"lang": "en"}, ["geo"], "atlas")
    assert (document["namespace"], document["principals"], document["indexed"]) == (namespace, [], True)
    assert document["created_at"] == document["updated_at"]
    json.dumps(document)


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
async def test_document_is_found_as_document(kb: KnowledgeBase, mode: Any) -> None:
    await kb.add_document(markdown([*manual(), "## Zebras", "Zebras graze on the savannah."]), document_id="d")
    await kb.store_fact("Something else entirely", fact_id="f")

    hit = (await kb.search("zebras graze savannah", mode=mode))["hits"][0]

    assert (hit["fact_id"], hit["document_id"]) == ("d", "d")
    assert "savannah" in hit["content"]


@pytest.mark.parametrize(
    "filters",
    [{"tags": "geo"}, {"source": "atlas"}, {"document_id": "d"}, {"metadata.lang": "en"}, {"fact_id": ["d"]}],
)
async def test_document_can_be_filtered_for(kb: KnowledgeBase, filters: dict[str, Any]) -> None:
    await kb.add_document(RIVERS, document_id="d", tags=["geo"], source="atlas", metadata={"lang": "en"})
    await kb.add_document(RIVERS + " Too.", document_id="other")

    results = await kb.search("Rhine", filters=filters)

    assert hit_ids(results) == ["d"]


async def test_facts_and_documents_are_kept_apart(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d", tags=["geo"])
    await kb.store_fact("The Rhine again", fact_id="f", tags=["geo"])

    assert [fact["id"] for fact in await kb.get_fact()] == ["f"]
    assert await kb.get_fact("d") == []
    assert [fact["id"] for fact in await kb.get_fact(query="Rhine")] == ["f"]
    assert [fact["id"] for fact in await kb.get_fact(filters={"tags": "geo"})] == ["f"]
    assert [fact["id"] async for fact in kb.iter_facts()] == ["f"]
    assert [fact["id"] async for fact in kb.iter_facts(filters={"tags": "geo"})] == ["f"]
    assert [document["id"] for document in await kb.list_documents()] == ["d"]
    with pytest.raises(FactNotFoundError):
        await kb.update_fact("d", content="mine now")
    assert await kb.delete_fact("d") is False
    assert (await kb.delete_facts({"tags": "geo"}))["succeeded"] == 1
    assert [document["id"] for document in await kb.list_documents()] == ["d"]
    stats = await kb.get_stats()
    assert (stats["facts"], stats["documents"], stats["passages"]) == (0, 1, 1)


async def test_many_documents_do_not_crowd_facts_out(kb: KnowledgeBase) -> None:
    await kb.store_fact("The Rhine is mentioned here once, at the end of a longer text about rivers", fact_id="f")
    for number in range(30):
        await kb.add_document(f"Rhine Rhine Rhine {number}", document_id=f"d{number}")

    facts = await kb.get_fact(query="Rhine", limit=1)

    assert [fact["id"] for fact in facts] == ["f"]


async def test_id_of_a_fact_is_not_taken(kb: KnowledgeBase) -> None:
    await kb.store_fact("a fact", fact_id="x")
    await kb.add_document(RIVERS, document_id="y")

    with pytest.raises(VersionConflictError):
        await kb.add_document(LAKES, document_id="x")
    with pytest.raises(VersionConflictError):
        await kb.store_fact("another fact", fact_id="y")

    assert (await kb.get_fact("x"))[0]["content"] == "a fact"
    assert RIVERS in (await kb.get_document("y"))["text"]


async def test_same_document_is_unchanged(kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    text = markdown(manual())
    first = await kb.add_document(text, tags=["a"])
    embedded = len(stub_embedding.texts)

    again = await kb.add_document(text, tags=["a"])

    assert again == {**first, "status": "unchanged", "embedded": 0}
    assert len(stub_embedding.texts) == embedded


async def test_change_of_a_paragraph_embeds_only_its_passages(kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    lines = manual(parts=10, paragraphs=10)
    first = await kb.add_document(markdown(lines), document_id="d")
    embedded = len(stub_embedding.texts)
    lines[37] += " A giraffe was seen."

    second = await kb.add_document(markdown(lines), document_id="d")
    new = stub_embedding.texts[embedded:]

    assert first["passages"] > 50
    assert (second["version"], second["indexed"]) == (2, True)
    assert second["embedded"] == len(new) <= 3
    assert any("giraffe" in text for text in new)
    assert await found(kb, "giraffe", mode="vector") == ["d"]
    assert (await kb.get_stats())["passages"] == second["passages"]


async def test_new_labels_need_no_new_vectors(kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    text = markdown(manual())
    await kb.add_document(text, document_id="d", tags=["old"])
    embedded = len(stub_embedding.texts)

    changed = await kb.add_document(text, document_id="d", tags=["new"])

    assert (changed["status"], changed["version"], changed["embedded"]) == ("success", 2, 0)
    assert len(stub_embedding.texts) == embedded
    assert await found(kb, "paragraph", filters={"tags": "old"}) == []
    assert await found(kb, "paragraph", filters={"tags": "new"}) == ["d"]


async def test_nothing_is_left_of_an_old_version_or_a_deleted_document(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    await kb.add_document(RIVERS, document_id="kept")
    before = control.keys(namespace)
    await kb.add_document(markdown(manual(parts=6)), document_id="d")
    second = await kb.add_document(markdown(manual(parts=2)), document_id="d")
    with_two_parts = control.keys(namespace)

    deleted = await kb.delete_document("d")

    assert deleted is True
    assert len([key for key in with_two_parts if ":passage:" in key]) == 1 + second["passages"]
    assert control.keys(namespace) - before <= {f"kb:{{{namespace}}}:leftovers"}
    assert await found(kb, "paragraph") == ["kept"]
    assert (await kb.get_stats())["passages"] == 1
    assert await kb.delete_document("d") is False


async def test_deleted_document_is_unknown(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d")

    await kb.delete_document("d")

    with pytest.raises(DocumentNotFoundError):
        await kb.get_document("d")
    assert await kb.list_documents() == []
    assert (await kb.add_document(RIVERS, document_id="d"))["version"] == 1


async def test_documents_of_others_are_not_seen(kb: KnowledgeBase) -> None:
    await kb.add_document(RIVERS, document_id="d", principals=["group:a"])
    mine, theirs = ["group:a"], ["group:b"]

    assert await found(kb, "Rhine", principals=theirs) == []
    assert await found(kb, "Rhine", principals=mine) == ["d"]
    assert await kb.list_documents(principals=theirs) == []
    assert len(await kb.list_documents(principals=mine)) == 1
    with pytest.raises(DocumentNotFoundError):
        await kb.get_document("d", principals=theirs)
    assert await kb.delete_document("d", principals=theirs) is False
    with pytest.raises(PermissionDeniedError):
        await kb.add_document(LAKES, document_id="d", principals=theirs)
    assert RIVERS in (await kb.get_document("d", principals=mine))["text"]


async def test_chunks_say_where_they_stand(kb: KnowledgeBase) -> None:
    text = markdown([*manual(parts=3), "## Animals", "### Zebras", "Zebras graze on the savannah."])
    await kb.add_document(text, document_id="d", source="handbook")

    (best, *_) = await kb.retrieve_chunks_from_text("zebras graze savannah")
    context = await kb.build_context("zebras graze savannah")

    assert best["doc_id"] == "d"
    assert best["section_path"] == ["Manual", "Animals", "Zebras"]
    assert best["section_title"] == "Zebras"
    assert (best["page_start"], best["page_end"]) == (None, None)
    assert context["citations"][0]["section_title"] == "Zebras"
    assert context["citations"][0]["document_id"] == "d"
    assert "[1] handbook, Zebras" in context["text"]


async def test_neighbouring_passages_of_a_document_are_merged(kb: KnowledgeBase) -> None:
    await kb.add_document(markdown(manual(parts=1, paragraphs=6)), document_id="d")

    (best, *_) = await kb.retrieve_chunks_from_text("Sentence of paragraph 3 about topic3")

    assert "topic3" in best["content"]
    assert "topic2" in best["content"] or "topic4" in best["content"]


async def test_pages_follow_one_after_the_other(kb: KnowledgeBase) -> None:
    for number in range(5):
        await kb.add_document(f"Document {number}", document_id=f"d{number}")

    pages = [await kb.list_documents(limit=2, offset=offset) for offset in (0, 2, 4)]

    assert [[one["id"] for one in page] for page in pages] == [["d4", "d3"], ["d2", "d1"], ["d0"]]


async def test_file_is_known_again_by_its_path(kb: KnowledgeBase, tmp_path: Path) -> None:
    file = tmp_path / "rivers.md"
    file.write_text(f"# Rivers\n\n{RIVERS}\n")
    first = await kb.add_document(path=file)
    again = await kb.add_document(path=file)
    file.write_text(f"# Rivers\n\n{RIVERS} And on.\n")

    changed = await kb.add_document(path=file)
    document = await kb.get_document(first["document_id"])

    assert again["status"] == "unchanged"
    assert (changed["document_id"], changed["version"]) == (first["document_id"], 2)
    assert (document["source"], document["path"], document["title"]) == ("rivers.md", "rivers.md", "Rivers")
    assert document["text"].endswith("And on.")


async def test_unreadable_file_leaves_the_old_version(kb: KnowledgeBase, tmp_path: Path) -> None:
    file = tmp_path / "rivers.md"
    file.write_text(RIVERS)
    added = await kb.add_document(path=file)
    file.write_bytes(b"\x00\x01\x02" * 100)

    with pytest.raises(InvalidInputError, match="binary"):
        await kb.add_document(path=file)

    assert (await kb.get_document(added["document_id"]))["text"] == RIVERS
    assert await found(kb, "Rhine") == [added["document_id"]]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "content"),
        ({"content": "a", "path": "/tmp/b"}, "content"),
        ({"content": ""}, "content"),
        ({"content": "a\x00b"}, "content"),
        ({"content": 7}, "content"),
        ({"path": 7}, "path"),
        ({"path": ""}, "path"),
        ({"path": "/nowhere/at/all.md"}, "path"),
        ({"content": "a", "document_id": "no spaces"}, "document_id"),
        ({"content": "a", "title": "x" * 300}, "title"),
        ({"content": "a", "metadata": []}, "metadata"),
        ({"content": "a", "tags": "x"}, "tags"),
        ({"content": "a", "principals": ["*"]}, "principals"),
        ({"content": "a", "media_type": ""}, "media_type"),
    ],
)
async def test_bad_arguments_are_refused(kb: KnowledgeBase, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await kb.add_document(**arguments)

    assert refused.value.field == field

"""Folders and who sees them: what is restricted, deleted, or left alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import EmbeddingSettings
from tests.support.documents import LAKES, RIVERS, empty, write_atlas, write_tree
from tests.support.facts import found

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.embeddings import StubEmbedding

ANN = ["user:ann"]
BEN = ["user:ben"]


@pytest.fixture
async def kb(open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding) -> KnowledgeBase:
    # Without a cache, what is embedded again is seen.
    base = open_kb(stub_embedding, embedding=EmbeddingSettings(cache_size=0))
    await base.start()
    return base


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "atlas"
    write_atlas(root)
    return root


async def paths(kb: KnowledgeBase, **scope: Any) -> set[str | None]:
    return {document["path"] for document in await kb.list_documents(**scope)}


async def text_of(kb: KnowledgeBase, path: str, **scope: Any) -> str:
    (found,) = [one["id"] for one in await kb.list_documents(**scope) if one["path"] == path]
    return (await kb.get_document(found, **scope))["text"]


async def test_files_that_are_gone_go_only_when_told_to(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree)
    await kb.add_document("# Added by itself\n\nIt stays.", document_id="other")
    (tree / "rivers.md").unlink()

    kept = await kb.ingest_path(tree)
    with_all = await paths(kb)
    result = await kb.ingest_path(tree, delete_missing=True)

    assert (kept["deleted"], result["deleted"]) == (0, 1)
    assert "rivers.md" in with_all
    assert await paths(kb) == {None, "lakes/constance.txt", "manual.md", "table.csv"}
    assert await found(kb, "Rhine North Sea", mode="text") == [
        document["id"] for document in await kb.list_documents() if document["path"] == "table.csv"
    ]


async def test_deletion_stays_within_tree_and_namespace(kb: KnowledgeBase, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_tree(first, {"a.md": RIVERS, "b.md": LAKES})
    write_tree(second, {"a.md": RIVERS})
    other = f"{kb.settings.namespace}-other"
    await kb.ingest_path(first)
    await kb.ingest_path(second)
    await kb.ingest_path(first, namespace=other)
    (first / "a.md").unlink()
    (second / "a.md").unlink()

    result = await kb.ingest_path(first, delete_missing=True)

    assert result["deleted"] == 1
    assert sorted([str(document["path"]) for document in await kb.list_documents()]) == ["a.md", "b.md"]
    assert await paths(kb, namespace=other) == {"a.md", "b.md"}


async def test_deletion_under_a_shared_name_stays_within_its_principals(kb: KnowledgeBase, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_tree(first, {"a.md": RIVERS})
    write_tree(second, {"b.md": LAKES})
    await kb.ingest_path(first, name="shared", principals=ANN)

    result = await kb.ingest_path(second, name="shared", principals=BEN, delete_missing=True)

    assert result["deleted"] == 0
    assert await paths(kb, principals=ANN) == {"a.md"}


async def test_files_that_a_pattern_leaves_out_are_not_gone(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree)

    result = await kb.ingest_path(tree, pattern="*.md", delete_missing=True)

    assert (result["processed"], result["deleted"]) == (2, 0)
    assert len(await kb.list_documents()) == 4


@pytest.mark.parametrize("pattern", ["**/*", "*.md"])
async def test_empty_folder_deletes_nothing(kb: KnowledgeBase, tree: Path, pattern: str) -> None:
    await kb.ingest_path(tree)
    empty(tree)

    with pytest.raises(InvalidInputError, match="holds no file") as refused:
        await kb.ingest_path(tree, pattern=pattern, delete_missing=True)

    assert refused.value.field == "delete_missing"
    assert len(await kb.list_documents()) == 4


async def test_folder_with_other_files_gives_up_its_documents(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree, pattern="*.md")
    empty(tree)
    write_tree(tree, {"note.txt": "They shall go."})

    result = await kb.ingest_path(tree, pattern="*.md", delete_missing=True)

    assert (result["processed"], result["deleted"]) == (0, 2)
    assert await kb.list_documents() == []


async def test_empty_folder_without_documents_is_nothing_to_refuse(kb: KnowledgeBase, tmp_path: Path) -> None:
    result = await kb.ingest_path(tmp_path, delete_missing=True)

    assert (result["processed"], result["deleted"]) == (0, 0)


async def test_file_that_is_restricted_is_hidden_from_everybody_else(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding
) -> None:
    await kb.ingest_path(tree)
    embedded = len(stub_embedding.texts)

    restricted = await kb.ingest_path(tree, principals=ANN)

    assert restricted["succeeded"] == 4
    assert len(stub_embedding.texts) == embedded
    assert await kb.list_documents() == []
    assert await found(kb, "Rhine North Sea", mode="text") == []
    assert await found(kb, "Rhine North Sea", mode="vector") == []
    assert len(await kb.list_documents(principals=ANN)) == 4
    assert await found(kb, "Rhine North Sea", mode="vector", principals=ANN)
    opened = await kb.ingest_path(tree)
    assert (opened["succeeded"], len(await kb.list_documents())) == (4, 4)


async def test_file_that_cannot_be_read_any_more_is_restricted_all_the_same(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree, tags=["old"])
    (tree / "rivers.md").write_bytes(b"\x00\x01\x02" * 100)

    result = await kb.ingest_path(tree, principals=ANN)

    assert [failure["path"] for failure in result["failed"]] == ["rivers.md"]
    assert await kb.list_documents() == []
    assert RIVERS in await text_of(kb, "rivers.md", principals=ANN)


async def test_folder_of_the_same_name_takes_nothing_from_other_principals(kb: KnowledgeBase, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "docs", tmp_path / "b" / "docs"
    write_tree(first, {"readme.md": RIVERS})
    write_tree(second, {"readme.md": LAKES})
    await kb.ingest_path(first, principals=ANN)
    (first / "readme.md").unlink()

    refused = await kb.ingest_path(second, principals=BEN)

    assert "another folder of the same name" in refused["failed"][0]["error"]
    assert RIVERS in await text_of(kb, "readme.md", principals=ANN)
    assert await kb.list_documents(principals=BEN) == []


async def test_document_of_another_origin_is_not_taken_over(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree, pattern="rivers.md")
    (document,) = await kb.list_documents()
    await kb.delete_document(document["id"])
    await kb.add_document(LAKES, document_id=document["id"], principals=ANN)

    result = await kb.ingest_path(tree, pattern="rivers.md")

    assert "other principals" in result["failed"][0]["error"]
    assert (await kb.get_document(document["id"], principals=ANN))["text"] == LAKES


async def test_document_that_was_stored_anew_meanwhile_is_not_deleted(
    kb: KnowledgeBase, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kb.ingest_path(tree)
    (tree / "rivers.md").unlink()
    (river,) = [one["id"] for one in await kb.list_documents() if one["path"] == "rivers.md"]
    folders = (await kb._services.start()).ingestion._folders
    exists = folders.exists

    async def replaced(path: Path) -> bool:
        if path.name == "rivers.md":
            await kb.delete_document(river)
            await kb.add_document(LAKES, document_id=river)
        return await exists(path)

    monkeypatch.setattr(folders, "exists", replaced)

    result = await kb.ingest_path(tree, delete_missing=True)

    assert (result["deleted"], result["completed"]) == (0, False)
    assert (await kb.get_document(river))["text"] == LAKES

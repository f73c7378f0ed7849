"""Folders into documents: only what has changed is done, and each file stands alone."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.documents.ingest import FILES_IN_FLIGHT
from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import ChunkingSettings, EmbeddingSettings
from tests.support.documents import LAKES, RIVERS, manual, markdown, paragraph, write_atlas, write_tree
from tests.support.facts import found
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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "atlas"
    write_atlas(root)
    return root


def move(tree: Path) -> Path:
    """Moves a folder to another place, where it has the same name."""
    moved = tree.parent / "elsewhere" / tree.name
    moved.parent.mkdir()
    tree.rename(moved)
    return moved


async def paths(kb: KnowledgeBase, **scope: Any) -> set[str | None]:
    return {document["path"] for document in await kb.list_documents(**scope)}


async def test_folder_becomes_documents(kb: KnowledgeBase, tree: Path) -> None:
    seen: list[tuple[int, int]] = []

    result = await kb.ingest_path(tree, tags=["atlas"], progress=lambda done, total: seen.append((done, total)))

    assert (result["processed"], result["succeeded"], result["duplicates"]) == (4, 4, 0)
    assert (result["failed"], result["completed"], result["deleted"]) == ([], True, 0)
    assert result["embedded"] == result["passages"] == (await kb.get_stats())["passages"]
    assert seen == [(done, 4) for done in range(1, 5)]
    assert await paths(kb) == {"rivers.md", "lakes/constance.txt", "manual.md", "table.csv"}
    hit = (await kb.search("Constance between countries", filters={"tags": "atlas"}))["hits"][0]
    assert hit["source"] == "lakes/constance.txt"
    assert all(document["indexed"] for document in await kb.list_documents())
    json.dumps(result)


async def test_unchanged_files_are_neither_read_nor_embedded(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kb.ingest_path(tree)
    embedded = len(stub_embedding.texts)
    services = await kb._services.start()

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(services.extractor, "extract_file", never)
    result = await kb.ingest_path(tree)

    assert (result["processed"], result["succeeded"], result["duplicates"]) == (4, 0, 4)
    assert len(stub_embedding.texts) == embedded


async def test_touched_file_is_read_once_and_not_stored_anew(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kb.ingest_path(tree)
    before = await kb.list_documents()
    embedded = len(stub_embedding.texts)
    os.utime(tree / "rivers.md", (1, 1))

    second = await kb.ingest_path(tree)
    monkeypatch.setattr((await kb._services.start()).extractor, "extract_file", None)
    third = await kb.ingest_path(tree)

    assert (second["duplicates"], third["duplicates"]) == (4, 4)
    assert len(stub_embedding.texts) == embedded
    assert await kb.list_documents() == before


async def test_change_of_a_paragraph_embeds_only_its_passages(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding
) -> None:
    lines = manual(parts=5)
    await kb.ingest_path(tree)
    embedded = len(stub_embedding.texts)
    lines[12] += " A giraffe was seen."
    write_tree(tree, {"manual.md": markdown(lines)})

    result = await kb.ingest_path(tree)
    new = stub_embedding.texts[embedded:]

    assert (result["succeeded"], result["duplicates"]) == (1, 3)
    assert result["passages"] > 20
    assert result["embedded"] == len(new) <= 3
    assert any("giraffe" in text for text in new)
    assert len(await found(kb, "giraffe", mode="text")) == 1


def rewrite_in_disguise(path: Path, text: str) -> None:
    """Changes a file, and keeps its size and the time of its last change."""
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert path.stat().st_mtime_ns == status.st_mtime_ns


async def test_edit_that_keeps_size_and_time_is_seen(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree)
    before = (tree / "rivers.md").stat().st_ctime_ns
    # The clock of files may stand still for some milliseconds.
    assert await eventually(lambda: asyncio.to_thread(touched_after, tree / "rivers.md", before))
    rewrite_in_disguise(tree / "rivers.md", f"# Rivers\n\n{RIVERS.upper()}\n")

    result = await kb.ingest_path(tree)

    assert (result["succeeded"], result["duplicates"]) == (1, 3)
    assert len(await found(kb, "Rhine", mode="text")) == 2
    (river,) = [one for one in await kb.list_documents() if one["path"] == "rivers.md"]
    assert RIVERS.upper() in (await kb.get_document(river["id"]))["text"]


def touched_after(path: Path, before: int) -> bool:
    """Touches a file; tells whether its clock has moved."""
    path.touch()
    return path.stat().st_ctime_ns > before


async def test_force_compares_what_all_files_say(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kb.ingest_path(tree)
    embedded = len(stub_embedding.texts)
    read: list[str] = []
    extractor = (await kb._services.start()).extractor
    extract = extractor.extract_file

    async def seen(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return await extract(path, **options)

    monkeypatch.setattr(extractor, "extract_file", seen)

    result = await kb.ingest_path(tree, force=True)

    assert (result["succeeded"], result["duplicates"], len(read)) == (0, 4, 4)
    assert len(stub_embedding.texts) == embedded


async def test_bad_files_are_listed_and_the_others_go_on(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree)
    (tree / "rivers.md").write_bytes(b"\x00\x01\x02" * 100)
    (tree / "empty.md").write_text("  \n")
    (tree / "out.md").symlink_to("/etc/hostname")
    write_tree(tree, {"new.md": "Something new."})

    result = await kb.ingest_path(tree, delete_missing=True)

    reasons = {failure["path"]: failure["error"] for failure in result["failed"]}
    assert set(reasons) == {"rivers.md", "empty.md", "out.md"}
    assert "binary" in reasons["rivers.md"]
    assert "no text" in reasons["empty.md"]
    assert "out of the folder" in reasons["out.md"]
    assert (result["processed"], result["succeeded"], result["duplicates"], result["deleted"]) == (7, 1, 3, 0)
    assert result["completed"] is True
    assert RIVERS in {(await kb.get_document(one["id"]))["text"].split("\n\n")[-1] for one in await kb.list_documents()}


async def test_single_file_is_the_same_document_as_in_its_folder(kb: KnowledgeBase, tree: Path) -> None:
    await kb.ingest_path(tree)

    result = await kb.ingest_path(tree / "rivers.md")

    assert (result["processed"], result["duplicates"]) == (1, 1)
    assert len(await kb.list_documents()) == 4


async def test_tree_that_was_moved_is_known_again(kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding) -> None:
    await kb.ingest_path(tree)
    embedded = len(stub_embedding.texts)
    moved = move(tree)

    result = await kb.ingest_path(moved)

    assert (result["duplicates"], len(await kb.list_documents())) == (4, 4)
    assert len(stub_embedding.texts) == embedded


async def test_two_folders_of_one_name_are_not_mixed_up(kb: KnowledgeBase, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "docs", tmp_path / "b" / "docs"
    write_tree(first, {"readme.md": RIVERS})
    write_tree(second, {"readme.md": LAKES})
    await kb.ingest_path(first)

    refused = await kb.ingest_path(second)
    named = await kb.ingest_path(second, name="b docs")

    (failure,) = refused["failed"]
    assert failure["path"] == "readme.md"
    assert "another folder of the same name" in failure["error"]
    assert named["succeeded"] == 1
    assert {document["characters"] for document in await kb.list_documents()} == {len(RIVERS), len(LAKES)}


async def test_changed_labels_reach_unchanged_files(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding
) -> None:
    await kb.ingest_path(tree, tags=["old"])
    embedded = len(stub_embedding.texts)

    result = await kb.ingest_path(tree, tags=["new"])

    assert (result["succeeded"], result["embedded"]) == (4, 0)
    assert len(stub_embedding.texts) == embedded
    assert {tuple(document["tags"]) for document in await kb.list_documents()} == {("new",)}


async def test_other_passage_length_cuts_unchanged_files_anew(
    kb: KnowledgeBase, open_kb: OpenKnowledgeBase, tree: Path, stub_embedding: StubEmbedding
) -> None:
    first = await kb.ingest_path(tree)
    longer = open_kb(stub_embedding, chunking=ChunkingSettings(passage_tokens=128))

    second = await longer.ingest_path(tree)

    assert second["succeeded"] == 4
    assert second["passages"] < first["passages"]


async def test_ingestion_without_a_model_stores_everything(
    kb: KnowledgeBase, tree: Path, stub_embedding: StubEmbedding
) -> None:
    await kb.store_fact("the namespace exists")
    stub_embedding.become("failing")

    result = await kb.ingest_path(tree)
    by_words = await found(kb, "Constance", mode="text")
    stub_embedding.become("well")

    assert (result["succeeded"], result["embedded"], result["completed"]) == (4, 0, True)
    assert len(by_words) == 1

    async def complete() -> bool:
        return (await kb.get_stats())["pending"] == 0

    assert await eventually(complete, within=60.0)
    assert all(document["indexed"] for document in await kb.list_documents())


async def test_cancelled_ingestion_goes_on_where_it_was(
    kb: KnowledgeBase, tmp_path: Path, namespace: str, control: Control
) -> None:
    root = tmp_path / "many"
    write_tree(root, {f"{number:03}.md": paragraph(number) for number in range(40)})
    halfway = asyncio.Event()
    ingesting = asyncio.create_task(
        kb.ingest_path(root, progress=lambda done, total: halfway.set() if done == 10 else None)
    )
    await halfway.wait()

    ingesting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ingesting
    result = await kb.ingest_path(root)

    assert result["duplicates"] >= 10
    assert result["succeeded"] == 40 - result["duplicates"]
    assert len(await kb.list_documents()) == 40

    async def complete() -> bool:
        return (await kb.get_stats())["pending"] == 0

    assert await eventually(complete, within=60.0)
    assert len([key for key in control.keys(namespace) if ":passage:" in key]) == (await kb.get_stats())["passages"]


async def test_only_a_few_files_are_in_flight(
    kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "many"
    write_tree(root, {f"{number:03}.md": paragraph(number) for number in range(30)})
    extractor = (await kb._services.start()).extractor
    read = extractor.extract_file
    under_way = most = 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await read(*args, **options)
        finally:
            under_way -= 1

    monkeypatch.setattr(extractor, "extract_file", counted)

    result = await kb.ingest_path(root)

    assert result["succeeded"] == 30
    assert 1 < most <= FILES_IN_FLIGHT


async def test_call_that_runs_out_of_time_says_so(kb: KnowledgeBase, tmp_path: Path) -> None:
    root = tmp_path / "many"
    write_tree(root, {f"{number:03}.md": paragraph(number) for number in range(5)})
    await kb.ingest_path(root, pattern="000.md")
    extractor = (await kb._services.start()).extractor

    async def slow(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(30)

    extractor.extract_file = slow  # type: ignore[method-assign]

    result = await kb.ingest_path(root, timeout=1.0)

    assert (result["processed"], result["duplicates"], result["completed"]) == (1, 1, False)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"path": "/nowhere/at/all"}, "path"),
        ({"path": 7}, "path"),
        ({"path": "a\x00b"}, "path"),
        ({"path": ".", "pattern": "../*"}, "pattern"),
        ({"path": ".", "pattern": ""}, "pattern"),
        ({"path": ".", "name": ""}, "name"),
        ({"path": ".", "delete_missing": "yes"}, "delete_missing"),
        ({"path": ".", "force": 1}, "force"),
        ({"path": ".", "tags": 7}, "tags"),
    ],
)
async def test_bad_arguments_are_refused(kb: KnowledgeBase, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await kb.ingest_path(**arguments)

    assert refused.value.field == field

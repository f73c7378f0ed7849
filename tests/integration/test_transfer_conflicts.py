"""Imports into a base that holds something else already, and into one that the same file fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.admin.transfer.importer import Importer
from tests.support.transfer_files import write_lines

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from knowledge_base.types import OnConflict
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control

MODES: list[OnConflict] = ["skip", "overwrite", "newer", "error"]
EARLY, LATE = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


class StoppedError(Exception):
    """Stands for whatever ends a process."""


async def contents(kb: KnowledgeBase) -> dict[str, str]:
    return {fact["id"]: fact["content"] async for fact in kb.iter_facts()}


async def imported(kb: KnowledgeBase, path: Path, mode: OnConflict, namespace: str | None = None) -> dict[str, Any]:
    """Imports a file after a dry run that must tell the same."""
    foreseen = await kb.import_data(path, on_conflict=mode, dry_run=True, namespace=namespace)
    done = await kb.import_data(path, on_conflict=mode, namespace=namespace)
    assert foreseen == {**done, "dry_run": True}
    return dict(done)


@pytest.mark.parametrize("mode", ["overwrite", "newer"])
@pytest.mark.parametrize(
    "now",
    [
        {"a": "two", "b": "one", "c": "three"},
        {"a": "two", "b": "three", "c": "one"},
        {"a": "four", "b": "one", "c": "two"},
        {"b": "one", "c": "two"},
    ],
)
async def test_contents_that_moved_between_facts_come_back(
    open_kb: OpenKnowledgeBase, control: Control, tmp_path: Path, mode: OnConflict, now: dict[str, str]
) -> None:
    kb = open_kb()
    for fact_id, content in now.items():
        await kb.store_fact(content, fact_id=fact_id)
    then = {"a": "one", "b": "two", "c": "three"}
    path = write_lines(
        tmp_path / "file", *({"id": n, "content": c, "created_at": EARLY, "updated_at": LATE} for n, c in then.items())
    )

    result = await imported(kb, path, mode)

    assert (result["succeeded"], result["failed"]) == (3, [])
    assert await contents(kb) == then
    assert (await kb.check_integrity())["ok"]
    again = await imported(kb, path, "overwrite")
    assert (again["succeeded"], again["failed"]) == (0, [])


async def test_fact_whose_content_another_one_keeps_is_reported(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await stub_kb.store_fact("one", fact_id="z")
    await stub_kb.store_fact("two", fact_id="a")
    await stub_kb.store_fact("three", fact_id="b")
    path = write_lines(
        tmp_path / "file",
        {"id": "a", "content": "one"},
        {"id": "b", "content": "two"},
        {"id": "new", "content": "one"},
        {"id": "c", "content": "four"},
    )

    result = await imported(stub_kb, path, "overwrite")

    assert [(one["line"], "'z'" in one["error"] or "'a'" in one["error"]) for one in result["failed"]] == [
        (1, True),
        (2, True),
    ]
    assert (result["processed"], result["succeeded"], result["duplicates"]) == (4, 1, 1)
    assert await contents(stub_kb) == {"z": "one", "a": "two", "b": "three", "c": "four"}


@pytest.mark.parametrize("mode", MODES)
async def test_dry_run_knows_what_the_same_file_would_have_written(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path, mode: OnConflict
) -> None:
    kb = open_kb(namespace=f"{namespace}-source")
    await kb.add_document("# Title\n\nwords", document_id="d")
    await kb.export_all_data(tmp_path / "export")
    document = json.loads((tmp_path / "export").read_text().splitlines()[1])
    other = json.loads(json.dumps(document))
    other["document"]["blocks"][0][1] = "Another"
    path = write_lines(
        tmp_path / "file",
        {"id": "a", "content": "one", "created_at": "2020-01-01T00:00:00Z"},
        {"id": "b", "content": "one"},
        {"id": "a", "content": "two", "updated_at": LATE},
        {"id": "c", "content": "one"},
        {"id": "a", "content": "one", "created_at": "2020-01-01T00:00:00Z"},
        {"id": "d", "content": "fact with the id of a document that comes"},
        {**document, "id": "d"},
        {**document, "document": {**document["document"], "id": "e"}},
        {**other, "document": {**other["document"], "id": "e"}},
        {"id": "e", "content": "fact with the id of a document that came"},
    )

    await imported(kb, path, mode, namespace=f"{namespace}-target")


async def test_dry_run_foresees_that_vectors_will_be_used(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path
) -> None:
    kb = open_kb()
    await kb.store_fact("one", fact_id="a")
    await kb.export_all_data(tmp_path / "file", include_vectors=True)

    result = await imported(kb, tmp_path / "file", "skip", namespace=f"{namespace}-new")

    assert (result["succeeded"], result["embedded"]) == (1, 0)


async def test_documents_are_counted_like_facts(open_kb: OpenKnowledgeBase, tmp_path: Path) -> None:
    kb = open_kb()
    await kb.add_document("# Title\n\nold words", document_id="d")
    await kb.export_all_data(tmp_path / "file")

    same = await imported(kb, tmp_path / "file", "error")
    await kb.add_document("# Title\n\nnew words", document_id="d")
    refused = await imported(kb, tmp_path / "file", "error")
    replaced = await imported(kb, tmp_path / "file", "overwrite")

    assert (same["duplicates"], same["failed"]) == (1, [])
    assert [failure["error"] for failure in refused["failed"]] == ["the id 'd' is taken, by version 2"]
    assert (replaced["succeeded"], replaced["replaced"], replaced["embedded"]) == (1, 1, 1)
    assert "old words" in (await kb.get_document("d"))["text"]


async def test_import_that_goes_on_brings_back_what_was_deleted_meanwhile(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "file", *({"id": f"f{n}", "content": f"number {n}"} for n in range(900)))

    counted, calls = Importer._counted, 0

    async def stop(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StoppedError
        return await counted(*args)

    with monkeypatch.context() as stopping:
        stopping.setattr(Importer, "_counted", stop)
        with pytest.raises(StoppedError):
            await stub_kb.import_data(path)
    await stub_kb.delete_facts({"fact_id": [f"f{n}" for n in range(50)]})

    result = await stub_kb.import_data(path)

    assert (result["processed"], result["failed"]) == (900, [])
    assert (await stub_kb.get_stats())["facts"] == 900

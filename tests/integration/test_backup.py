"""Backups hold everything, and can be seen to be restorable."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.admin.housekeeping.backup import _Comparison
from knowledge_base.connection.deadline import deadline
from knowledge_base.errors import InvalidInputError, OperationTimeoutError
from tests.support.control import Control
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

ANN = ["user:ann"]


@pytest.fixture
async def filled(control: Control, stub_kb: KnowledgeBase, namespace: str) -> KnowledgeBase:
    """Two namespaces with the same ids, and a document; a backup is of all that a server has."""
    control.run("FLUSHALL")
    for name in (namespace, f"{namespace}.b"):
        await stub_kb.store_fact(f"penguins of {name} swim", fact_id="p", metadata={"é": [1]}, namespace=name)
        await stub_kb.update_fact("p", content=f"penguins of {name} dive", namespace=name)
        await stub_kb.store_fact("puffins fly", fact_id="q", principals=ANN, expires_in=3_600, namespace=name)
    await stub_kb.add_document("# Whales\n\nWhales sing in the deep.", document_id="doc")
    return stub_kb


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where backups are restored; short, for the name of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def left_in(folder: Path) -> list[str]:
    """What a test of a backup has left behind."""
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
async def test_backup_is_restored_as_it_was(
    filled: KnowledgeBase, tmp_path: Path, scratch: Path, control: Control, namespace: str, name: str
) -> None:
    written = await filled.backup(tmp_path / name)
    before = {one: control.dump(one) for one in (namespace, f"{namespace}.b")}

    checked = await filled.verify_backup(tmp_path / name)

    assert checked["problems"] == []
    assert checked["ok"]
    assert (checked["facts"], checked["documents"]) == (written["facts"], written["documents"])
    assert written["facts"] >= 4
    assert {one: control.dump(one) for one in before} == before
    assert left_in(scratch) == []


async def test_verification_that_is_late_leaves_nothing(filled: KnowledgeBase, tmp_path: Path, scratch: Path) -> None:
    await filled.backup(tmp_path / "all.jsonl")

    services = await filled._services.start()

    async def never(*_: Path) -> Any:
        await asyncio.sleep(3_600)

    with pytest.raises(OperationTimeoutError) as late:
        async with deadline("verify_backup", 0.5):
            await services.backup_test.run(tmp_path / "all.jsonl", never)

    assert "removing" not in str(late.value)

    async def gone() -> bool:
        return not left_in(scratch)

    assert await eventually(gone, within=60.0)


async def test_backup_that_lacks_what_it_says_is_no_good(filled: KnowledgeBase, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    await filled.backup(path)
    path.write_bytes(path.read_bytes().replace(b"penguins", b"Penguins"))

    with pytest.raises(InvalidInputError, match="damaged"):
        await filled.verify_backup(path)


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a backup, header and trailer included."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_backup(path: Path, entries: list[dict[str, Any]]) -> None:
    """Writes a backup whose checksum is right, whatever is in it."""
    lines = [json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n" for entry in entries[:-1]]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    path.write_text("".join(lines) + json.dumps(entries[-1] | {"sha256": digest}, separators=(",", ":")) + "\n")


async def test_entry_that_cannot_be_restored_is_named(filled: KnowledgeBase, tmp_path: Path, namespace: str) -> None:
    path = tmp_path / "all.jsonl"
    await filled.backup(path)
    entries = entries_of(path)
    (broken,) = (entry for entry in entries if (entry.get("id"), entry.get("namespace")) == ("p", namespace))
    broken["content"] = ""
    write_backup(path, entries)

    checked = await filled.verify_backup(path)

    assert not checked["ok"]
    told, missing = checked["problems"]
    assert told.startswith(f"line {entries.index(broken) + 1}:")
    assert missing == f"entry {entries.index(broken)} (fact p of {namespace}) was not restored"


async def test_entry_that_is_restored_otherwise_is_named(filled: KnowledgeBase, tmp_path: Path, namespace: str) -> None:
    path = tmp_path / "all.jsonl"
    await filled.backup(path)
    entries = entries_of(path)
    (odd,) = (entry for entry in entries if (entry.get("id"), entry.get("namespace")) == ("p", namespace))
    odd["created_at"] = odd["created_at"].replace("+00:00", "9+00:00")
    write_backup(path, entries)

    checked = await filled.verify_backup(path)

    assert checked["problems"] == [f"entry {entries.index(odd)} (fact p of {namespace}) was restored differently"]


def test_entry_more_than_in_the_file_is_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    facts = [{"kind": "fact", "namespace": "n", "id": str(number), "content": "c"} for number in range(500)]
    new.write_text("".join(json.dumps(fact, separators=(",", ":")) + "\n" for fact in facts))
    del facts[7]
    facts[100], facts[103] = facts[103], {**facts[100], "passages": ""}
    old.write_text("".join(json.dumps(fact, separators=(",", ":")) + "\n" for fact in facts))
    comparison = _Comparison(old, new)

    while comparison.advance():
        pass
    comparison.close()

    assert comparison.problems == ["an entry (fact 7 of n) is more than what is in the file"]


async def test_facts_that_expired_since_are_counted_apart(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    for number in range(3):
        await stub_kb.store_fact(f"before {number}", fact_id=f"b{number}")
    for number in range(2):
        await stub_kb.store_fact(f"short {number}", fact_id=f"s{number}", expires_in=3_600)
    await stub_kb.store_fact("after", fact_id="a")
    await stub_kb.backup(path)
    entries = entries_of(path)
    for entry in entries:
        if str(entry.get("id")).startswith("s"):
            entry["expires_at"] = "2020-01-01T00:00:00.000+00:00"
    write_backup(path, entries)

    checked = await stub_kb.verify_backup(path)

    assert (checked["ok"], checked["problems"], checked["expired"]) == (True, [], 2)


@pytest.mark.parametrize("export_format", ["csv", "markdown"])
async def test_export_that_is_no_backup_is_refused(filled: KnowledgeBase, tmp_path: Path, export_format: Any) -> None:
    path = tmp_path / "export"
    await filled.export_all_data(path, format=export_format)

    with pytest.raises(InvalidInputError, match="no backup") as refused:
        await filled.verify_backup(path)

    assert refused.value.field == "path"


@pytest.mark.parametrize("content", [b"", b'{"content":"plain"}\n', b"no JSON", b"\x1f\x8bno gzip", b"\x00" * 99])
async def test_file_that_is_no_backup_is_refused(stub_kb: KnowledgeBase, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)

    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.verify_backup(tmp_path / "other")

    assert refused.value.field == "path"


@pytest.mark.parametrize("name", ["x\x00", "x\ud800"])
async def test_path_that_is_no_text_is_refused(stub_kb: KnowledgeBase, name: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.verify_backup(name)

    assert refused.value.field == "path"


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
async def test_what_is_no_file_is_refused(filled: KnowledgeBase, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await filled.verify_backup(tmp_path / name)

    assert refused.value.field == "path"


async def test_backup_runs_as_a_job(filled: KnowledgeBase, tmp_path: Path, stub_embedding: StubEmbedding) -> None:
    from tests.integration.test_jobs import state_of

    job = await filled.start_job("backup", {"path": str(tmp_path / "all.jsonl.gz")})
    ended = await state_of(filled, job["id"], "done", "failed")

    assert (ended["state"], ended["namespace"]) == ("done", None)
    assert (await filled.job_result(job["id"]))["documents"] >= 1
    with pytest.raises(InvalidInputError):
        await filled.start_job("backup", {"path": "x"}, namespace="y")
    with pytest.raises(InvalidInputError):
        await filled.start_job("backup", {"path": 7})

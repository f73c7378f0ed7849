"""Files that somebody made to hurt, and partial exports that belong to something else."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge_base.admin.transfer import export_file, exporter
from knowledge_base.admin.transfer.imported_fact import KEYS
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.errors import InvalidInputError, UnavailableError
from tests.integration.test_transfer_files import StoppedError, stop_after
from tests.support.facts import ids
from tests.support.transfer_files import write_lines

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([1e999, 10**400, "\ud800", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "*", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LINES = 60


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=st.lists(st.tuples(st.sampled_from(sorted(KEYS | {"document"})), anything), min_size=LINES))
async def test_anything_in_any_field_is_told_by_line_and_harms_nothing(
    stub_kb: KnowledgeBase, namespace: str, tmp_path: Path, values: list[tuple[str, Any]]
) -> None:
    base = {"content": "something", "kind": "fact"}
    path = write_lines(tmp_path / "file", *({**base, name: value} for name, value in values))

    result = await stub_kb.import_data(path, namespace=namespace, on_conflict="overwrite")

    assert result["processed"] + sum(one == ("kind", k) for one in values for k in ("header", "trailer")) == len(values)
    assert result["completed"]
    async for fact in stub_kb.iter_facts():
        assert fact["content"]
    await stub_kb.export_all_data(tmp_path / "out")


@pytest.mark.parametrize("field", ["created_at", "updated_at", "expires_at", "history"])
@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "9999-01-01T00:00:00Z", "1969-12-31T23:59:59Z", 5, []])
async def test_time_that_cannot_be_told_everywhere_is_refused(
    stub_kb: KnowledgeBase, tmp_path: Path, field: str, time: Any
) -> None:
    value = [{"version": 1, "content": "old", "updated_at": time}] if field == "history" else time
    path = write_lines(tmp_path / "file", {"content": "poison", field: value}, {"content": "good", "id": "good"})

    result = await stub_kb.import_data(path)

    assert [(one["line"], one["error"].split(":")[0]) for one in result["failed"]] == [(1, field)]
    assert await ids(stub_kb) == {"good"}


async def test_latest_time_is_taken_and_told_again(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "file", {"content": "late", "id": "a", "created_at": "9998-12-31T23:59:59+00:00"})

    assert (await stub_kb.import_data(path))["succeeded"] == 1
    assert (await stub_kb.get_fact("a"))[0]["created_at"].startswith("9998-12-31")


@pytest.mark.parametrize("kind", [[], {}, 5, None, True, "FACT", ["fact"]])
async def test_kind_of_any_type_fails_alone(stub_kb: KnowledgeBase, tmp_path: Path, kind: Any) -> None:
    path = write_lines(tmp_path / "file", {"kind": kind, "content": "x"}, {"content": "good", "id": "good"})

    result = await stub_kb.import_data(path)

    assert [one["line"] for one in result["failed"]] == [1]
    assert await ids(stub_kb) == {"good"}


@pytest.mark.parametrize("path", ["/tmp/\ud800", "\udcff.jsonl", "a\0b", b"/tmp/x"])
async def test_path_that_is_no_text_is_refused(stub_kb: KnowledgeBase, path: Any) -> None:
    for call in (stub_kb.export_all_data, stub_kb.import_data):
        with pytest.raises(InvalidInputError) as refused:
            await call(path)
        assert refused.value.field == "path"


@pytest.mark.parametrize("format_name", ["jsonl", "csv", "markdown"])
async def test_line_of_millions_of_values_fails_alone(stub_kb: KnowledgeBase, tmp_path: Path, format_name: str) -> None:
    values = "[" + "[]," * 4_000_000 + "1]"
    lines = {
        "jsonl": f'{{"content": "x", "metadata": {values}}}\n{{"content": "good", "id": "good"}}\n',
        "csv": f'content,id,metadata\nx,x,"{values}"\ngood,good,\n',
        "markdown": f'# t\n\n<!-- kb {{"metadata": {values}}} -->\n\nx\n\n<!-- kb end -->\n\n'
        '<!-- kb {"id":"good"} -->\n\ngood\n\n<!-- kb end -->\n',
    }
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(lines[format_name].encode()))

    result = await stub_kb.import_data(path)

    assert [one["error"].endswith("values") for one in result["failed"]] == [True]
    assert await ids(stub_kb) == {"good"}


async def test_filter_takes_documents_that_match(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await stub_kb.add_document("# One\n\nwords", document_id="one", tags=["keep"])
    await stub_kb.add_document("# Two\n\nwords", document_id="two")
    await stub_kb.store_fact("a fact", fact_id="fact", tags=["keep"])

    by_tag = await stub_kb.export_all_data(tmp_path / "tag", filters={"tags": "keep"})
    by_id = await stub_kb.export_all_data(tmp_path / "id", filters={"document_id": "two"})

    names = [json.loads(line).get("id") for line in (tmp_path / "tag").read_text().splitlines()[1:-1]]
    assert (names, by_tag["documents"]) == (["fact", "one"], 1)
    assert (by_id["facts"], by_id["documents"]) == (0, 1)


@pytest.mark.parametrize("case", ["dropped", "too old"])
async def test_partial_export_of_something_else_is_begun_anew(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(export_file, "BLOCK", 1_000)
    for number in range(40):
        await stub_kb.store_fact(f"old {number} " + "word " * 50, fact_id=f"f{number}")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(StoppedError):
            await stub_kb.export_all_data(tmp_path / "file")
    if case == "too old":
        monkeypatch.setattr(exporter, "GOES_ON_MS", 0)
        await stub_kb.delete_fact("f0")
        await asyncio.sleep(0.01)
    else:
        name = stub_kb.settings.namespace
        await stub_kb.drop_namespace(name, confirm=name)
        for number in range(40):
            await stub_kb.store_fact(f"new {number} " + "word " * 50, fact_id=f"f{number}")

    await stub_kb.export_all_data(tmp_path / "file")

    await stub_kb.export_all_data(tmp_path / "whole")
    assert (tmp_path / "file").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("damage", ["[]", "{}", "no size", "size", "place", "deep"])
async def test_damaged_journal_of_an_export_is_not_believed(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(export_file, "BLOCK", 1_000)
    for number in range(20):
        await stub_kb.store_fact(f"fact {number} " + "word " * 50, fact_id=f"f{number}")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(StoppedError):
            await stub_kb.export_all_data(tmp_path / "file")
    journal = tmp_path / ".file.journal"
    written = json.loads(journal.read_text())
    changed = {
        "no size": json.dumps({"version": written["version"], "options": written["options"]}),
        "size": json.dumps(written | {"size": "x"}),
        "place": json.dumps(written | {"place": []}),
        "deep": "[" * 100_000,
    }
    journal.write_text(changed.get(damage, damage))

    await stub_kb.export_all_data(tmp_path / "file")

    assert len((tmp_path / "file").read_text().splitlines()) == 22


async def test_export_of_documents_outlasts_an_outage(
    stub_kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub_kb.add_document("# One\n\nwords", document_id="one")
    read, calls = DocumentArchive.read, 0

    async def away(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise UnavailableError("the server is away")
        return await read(*args, **named)

    monkeypatch.setattr(DocumentArchive, "read", away)

    assert (await stub_kb.export_all_data(tmp_path / "file"))["documents"] == 1

"""Everything out of a base and into another one: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.embedding.service import PROBE
from knowledge_base.errors import InvalidInputError
from knowledge_base.types import ExportFormat
from tests.support.facts import found, ids
from tests.support.transfer_files import everything, fill, plain, write_lines

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control

FORMATS: list[ExportFormat] = ["jsonl", "csv", "markdown"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format_name", FORMATS)
async def test_round_trip_keeps_everything(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path, format_name: ExportFormat, suffix: str
) -> None:
    kb, other = open_kb(), open_kb(namespace=f"{namespace}-other")
    before = await fill(kb)
    path, again = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    report = await kb.export_all_data(path, format=format_name)

    result = await other.import_data(path)

    assert (report["facts"], report["documents"], report["bytes"]) == (6, 1, path.stat().st_size)
    assert (result["processed"], result["succeeded"], result["failed"]) == (7, 7, [])
    assert _anywhere(await everything(other)) == _anywhere(before)
    await other.export_all_data(again, format=format_name)
    assert plain(again).replace(b"-other", b"").split(b"sha256")[0] == plain(path).split(b"sha256")[0]


async def test_second_export_of_same_data_is_byte_equal(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await fill(stub_kb)
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        await stub_kb.export_all_data(tmp_path / name, include_vectors=True)

    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


async def test_vectors_of_the_same_model_are_used_and_no_model_is_asked(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path, stub_embedding: Any
) -> None:
    kb, other = open_kb(), open_kb(namespace=f"{namespace}-other")
    await fill(kb)
    await kb.export_all_data(tmp_path / "file", include_vectors=True)
    asked = len(stub_embedding.texts)

    result = await other.import_data(tmp_path / "file")

    assert (result["succeeded"], result["embedded"]) == (7, 0)
    assert set(stub_embedding.texts[asked:]) <= {PROBE}
    assert (await other.get_stats())["pending"] == 0
    assert (await found(other, "version two", mode="vector"))[0] == "changed"


async def test_vectors_of_another_model_are_made_anew(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path
) -> None:
    from tests.support.embeddings import StubEmbedding

    kb = open_kb()
    await kb.store_fact("penguins swim", fact_id="f1")
    await kb.export_all_data(tmp_path / "file", include_vectors=True)
    model = StubEmbedding(model_name="another", size=48)
    other = open_kb(model, namespace=f"{namespace}-other")

    result = await other.import_data(tmp_path / "file")

    assert (result["succeeded"], result["embedded"]) == (1, 1)
    assert "penguins swim" in model.texts
    assert await found(other, "penguins", mode="vector") == ["f1"]


async def test_filter_takes_only_what_matches(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await fill(stub_kb)

    report = await stub_kb.export_all_data(tmp_path / "file", filters={"tags": ["new", "@at"]})

    entries = [json.loads(line) for line in (tmp_path / "file").read_text().splitlines()]
    assert [entry["id"] for entry in entries[1:-1]] == ["-lines", "changed"]
    assert (report["facts"], report["documents"]) == (2, 0)
    assert (entries[0]["facts"], entries[-1]["facts"]) == (None, 2)


async def test_only_the_namespace_that_was_asked_for_is_exported(
    open_kb: OpenKnowledgeBase, namespace: str, tmp_path: Path
) -> None:
    kb = open_kb()
    await kb.store_fact("mine", fact_id="a")
    await kb.store_fact("other", fact_id="b", namespace=f"{namespace}-b")

    await kb.export_all_data(tmp_path / "file")

    assert "other" not in (tmp_path / "file").read_text()


async def test_file_of_all_namespaces_goes_back_into_each(
    new_server: Any, open_kb: OpenKnowledgeBase, tmp_path: Path
) -> None:
    first, second = (open_kb(redis_url=new_server().start().url) for _ in range(2))
    for name in ("a", "b"):
        await first.store_fact(f"fact of {name}", fact_id=name, namespace=name)
    await first.export_all_data(tmp_path / "file", namespace="*")
    with pytest.raises(InvalidInputError, match="2 namespaces"):
        await second.import_data(tmp_path / "file")

    result = await second.import_data(tmp_path / "file", namespace="*")

    assert result["succeeded"] == 2
    assert [(await second.get_fact(name, namespace=name))[0]["content"] for name in ("a", "b")] == [
        "fact of a", "fact of b",
    ]  # fmt: skip


async def test_file_is_for_its_owner_only_and_leaves_nothing_beside_it(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await stub_kb.store_fact("one")
    progress: list[tuple[int, int]] = []

    await stub_kb.export_all_data(tmp_path / "file", progress=lambda done, total: progress.append((done, total)))

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]
    assert progress[-1] == (1, 1)


async def test_plain_lines_are_imported(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "plain.jsonl",
        {"content": "penguins swim"},
        "",
        {"content": "walruses dive", "tags": ["sea"], "metadata": {"n": 1}, "fact_id": "w"},
    )

    result = await stub_kb.import_data(path)

    assert (result["processed"], result["succeeded"], result["embedded"]) == (2, 2, 2)
    assert await found(stub_kb, "walruses", filters={"tags": ["sea"]}) == ["w"]


async def test_plain_csv_is_imported(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text(
        '\ufeffcontent,id,tags\r\n"two\nlines, quoted ""so""",a,"[""x""]"\r\n\r\nplain,b,\r\n'
    )

    result = await stub_kb.import_data(tmp_path / "plain.csv")

    assert (result["succeeded"], result["failed"]) == (2, [])
    (fact,) = await stub_kb.get_fact("a")
    assert (fact["content"], fact["tags"]) == ('two\nlines, quoted "so"', ["x"])


async def test_bad_lines_are_told_by_number_and_the_rest_goes_on(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "bad.jsonl",
        {"content": "good one", "id": "g1"},
        "{broken",
        "[1]",
        {"metadata": {}},
        {"content": "   "},
        '{"content": "nan", "metadata": {"x": NaN}}',
        '{"content": "lone \\ud800 surrogate"}',
        {"content": "x", "id": "no id"},
        {"content": "x", "created_at": "yesterday"},
        {"content": "x", "version": 0},
        {"content": "x", "colour": "red"},
        '{"content": ' + "[" * 100_000,
        '{"content": "huge number", "metadata": {"x": ' + "9" * 5_000 + "}}",
        {"content": "x", "history": [{"version": 1}]},
        {"content": "x", "passages": [{"text": "x", "vector": "AAAA"}]},
        {"content": "good two", "id": "g2"},
    )

    result = await stub_kb.import_data(path)

    assert [failure["line"] for failure in result["failed"]] == list(range(2, 16))
    assert all(failure["error"] for failure in result["failed"])
    assert (result["processed"], result["succeeded"], result["failures"]) == (16, 2, 14)
    assert await ids(stub_kb) == {"g1", "g2"}


async def test_failures_are_told_up_to_a_thousand_and_counted_beyond(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", *["{"] * 1_500)

    result = await stub_kb.import_data(path)

    assert (len(result["failed"]), result["failures"], result["processed"]) == (1_000, 1_500, 1_500)


async def test_dry_run_says_what_would_happen_and_changes_nothing(
    stub_kb: KnowledgeBase, control: Control, tmp_path: Path
) -> None:
    await stub_kb.store_fact("there already", fact_id="a")
    await stub_kb.store_fact("old content", fact_id="b")
    path = write_lines(
        tmp_path / "file.jsonl",
        {"content": "there already", "id": "z"},
        {"content": "new content", "id": "b", "updated_at": "2999-01-01T00:00:00Z"},
        {"content": "a new one", "id": "c"},
        {"content": "over", "id": "d", "expires_at": "2001-01-01T00:00:00Z"},
        {"content": ""},
    )
    before = control.dump(stub_kb.settings.namespace)

    foreseen = await stub_kb.import_data(path, dry_run=True, on_conflict="newer")

    assert control.dump(stub_kb.settings.namespace) == before
    done = await stub_kb.import_data(path, on_conflict="newer")
    assert foreseen == {**done, "dry_run": True}
    assert (done["succeeded"], done["replaced"], done["duplicates"], done["expired"], done["failures"]) == (
        2,
        1,
        1,
        1,
        1,
    )


async def test_dry_run_makes_no_namespace(stub_kb: KnowledgeBase, control: Control, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "file.jsonl", {"content": "x"})

    result = await stub_kb.import_data(path, dry_run=True)

    assert result["succeeded"] == 1
    assert control.keys(stub_kb.settings.namespace) == set()
    assert control.indexes(stub_kb.settings.namespace) == set()


async def test_conflict_that_must_not_be_is_reported(stub_kb: KnowledgeBase, tmp_path: Path) -> None:
    await stub_kb.store_fact("old", fact_id="a")
    path = write_lines(tmp_path / "file.jsonl", {"content": "new", "id": "a"}, {"content": "other", "id": "b"})

    result = await stub_kb.import_data(path, on_conflict="error")

    assert [failure["line"] for failure in result["failed"]] == [1]
    assert result["succeeded"] == 1
    assert (await stub_kb.get_fact("a"))[0]["content"] == "old"


async def test_facts_are_embedded_later_when_the_model_is_away(
    stub_kb: KnowledgeBase, stub_embedding: Any, tmp_path: Path
) -> None:
    await stub_kb.store_fact("first", fact_id="first")
    stub_embedding.become("failing")
    path = write_lines(tmp_path / "file.jsonl", *({"content": f"fact {n}", "id": f"f{n}"} for n in range(5)))

    result = await stub_kb.import_data(path)

    assert (result["succeeded"], result["completed"]) == (5, True)
    assert (await stub_kb.get_stats())["pending"] == 5
    assert len(await found(stub_kb, "fact", mode="text")) == 5


@pytest.mark.parametrize(
    "arguments",
    [{"path": 3}, {"path": ""}, {"path": "a\0b"}, {"path": "/"}, {"format": "xml"}, {"namespace": "no namespace"}],
)
async def test_bad_arguments_of_an_export_are_refused(
    stub_kb: KnowledgeBase, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.export_all_data(**{"path": tmp_path / "file", **arguments})

    assert refused.value.field == next(iter(arguments))
    assert os.listdir(tmp_path) == []


def _anywhere(found: Any) -> Any:
    text = json.dumps(found).replace("-other", "")
    return json.loads(text)

"""The commands ingest and documents: what they pass on, print and return."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knowledge_base.errors import DocumentNotFoundError
from knowledge_base.interfaces.cli import main, session
from knowledge_base.settings import Settings

DOCUMENT = {
    "id": "atlas-1",
    "title": "Atlas",
    "version": 2,
    "passages": 3,
    "source": "a.md",
    "indexed": False,
}


class FakeDocuments:
    """Has the methods of a knowledge base that the commands call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.result: dict[str, Any] = {
            "processed": 3,
            "succeeded": 2,
            "duplicates": 1,
            "failed": [],
            "completed": True,
            "deleted": 1,
            "passages": 9,
            "embedded": 4,
        }
        self.there = True

    def open(self, settings: Settings) -> FakeDocuments:
        return self

    async def close(self) -> None:
        """Does nothing."""

    async def ingest_path(self, path: str, *, progress: Any, **options: Any) -> dict[str, Any]:
        progress(1, 3)
        self.calls.append(("ingest", path, options))
        return self.result

    async def list_documents(self, **options: Any) -> list[dict[str, Any]]:
        self.calls.append(("list", None, options))
        return [DOCUMENT] if self.there else []

    async def get_document(self, document_id: str, **options: Any) -> dict[str, Any]:
        if not self.there:
            raise DocumentNotFoundError(document_id, "default")
        return {**DOCUMENT, "text": "# Atlas\n\nWaters."}

    async def delete_document(self, document_id: str, **options: Any) -> bool:
        self.calls.append(("delete", document_id, options))
        return self.there


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> FakeDocuments:
    fake = FakeDocuments()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


def test_ingest_passes_everything_on(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "ingest docs --pattern *.md --delete-missing --force --tag a --tag b --name tree --principal user:ann --json"
    )

    code = main([*words.split(), "--metadata", '{"lang": "en"}'])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == base.result
    options = {
        "pattern": "*.md",
        "tags": ["a", "b"],
        "principals": ["user:ann"],
        "metadata": {"lang": "en"},
        "name": "tree",
        "delete_missing": True,
        "force": True,
    }
    assert base.calls == [("ingest", "docs", options)]


def test_ingest_says_what_it_did(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["ingest", "docs"])

    assert code == 0
    assert capsys.readouterr().out == (
        "3 files: 2 stored, 1 unchanged, 0 failed; 1 documents deleted; 4 of 9 passages embedded\n"
    )


def test_ingest_lists_what_failed(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    base.result["failed"] = [{"path": "bad\x1b.pdf", "error": "is encrypted"}]

    code = main(["ingest", "docs"])

    assert code == 1
    assert capsys.readouterr().out.startswith("bad\N{REPLACEMENT CHARACTER}.pdf  is encrypted\n")


def test_ingest_that_was_cut_short_fails(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    base.result["completed"] = False

    code = main(["ingest", "docs"])

    assert code == 1
    assert "cut short" in capsys.readouterr().err


def test_documents_are_listed(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["documents", "--limit", "5", "--offset", "2", "--principal", "user:ann"])

    assert code == 0
    assert capsys.readouterr().out == "atlas-1  Atlas  version 2  3 passages  from a.md  waits for vectors\n"
    assert base.calls == [("list", None, {"principals": ["user:ann"], "limit": 5, "offset": 2})]


def test_document_is_shown_with_its_text(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["documents", "show", "atlas-1"])

    assert code == 0
    assert capsys.readouterr().out.endswith("# Atlas\n\nWaters.\n")


def test_document_is_deleted(base: FakeDocuments, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["documents", "delete", "atlas-1", "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": "atlas-1"}


@pytest.mark.parametrize("action", ["show", "delete"])
def test_unknown_document_fails(base: FakeDocuments, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    base.there = False

    code = main(["documents", action, "nothing"])

    assert code == 1
    assert "no document 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["documents show", "documents list atlas-1", "ingest", "documents burn x"])
def test_wrong_usage_is_told(base: FakeDocuments, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err.startswith("kb: ")

"""``kb export`` and ``kb import``: what they pass on, print and return."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.interfaces.cli import main, session
from tests.unit.cli_base import FakeBase


class TransferBase(FakeBase):
    """A base that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []

    async def export_all_data(self, path: str, *, progress: Any, **options: Any) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        self.calls.append({"path": path, **options})
        progress(3, 3)
        return {"path": path, "facts": 2, "documents": 1, "bytes": 99, "checksum": "ab", "took_s": 0.1}

    async def import_data(self, path: str, *, progress: Any, **options: Any) -> dict[str, Any]:
        self.calls.append({"path": path, **options})
        progress(4, 4)
        counts = {"processed": 4, "succeeded": 2, "duplicates": 1, "replaced": 1, "expired": 0, "embedded": 2}
        failures = {"failed": self.failed, "failures": len(self.failed)}
        return {
            **counts,
            **failures,
            "completed": self.completed,
            "stopped_by": "Redis is away",
            "dry_run": options["dry_run"],
        }


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> TransferBase:
    fake = TransferBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


def test_export_passes_everything_on(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    words = "export out.csv.gz --format csv --vectors --tag hot --source cup"

    code = main([*words.split(), "--filter", '{"metadata.n": 1}'])

    assert code == 0
    assert base.calls == [
        {
            "path": "out.csv.gz",
            "format": "csv",
            "namespace": None,
            "include_vectors": True,
            "filters": {"and": [{"tags": ["hot"], "source": "cup"}, {"metadata.n": 1}]},
        }
    ]
    assert capsys.readouterr().out == "2 facts, 1 documents, 99 bytes: out.csv.gz\n"


def test_export_of_all_namespaces_prints_json(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    code = main(["--json", "export", "out.jsonl", "--all-namespaces"])

    assert code == 0
    assert base.calls[0]["namespace"] == "*"
    assert json.loads(capsys.readouterr().out)["bytes"] == 99


def test_export_that_is_refused_says_why(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    base.failure = InvalidInputError("path", "is a symbolic link; name the file itself")

    assert main(["export", "link"]) == 2
    assert capsys.readouterr().err == "kb: path: is a symbolic link; name the file itself\n"


def test_import_passes_everything_on(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    code = main(["import", "in.jsonl", "--on-conflict", "newer", "--dry-run"])

    assert code == 0
    assert base.calls == [{"path": "in.jsonl", "on_conflict": "newer", "dry_run": True, "namespace": None}]
    assert "2 of 4 would be imported (1 replaced another version)" in capsys.readouterr().out


def test_import_tells_failures_by_line_and_fails(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    base.failed = [{"line": 7, "error": "content: must not be blank"}]

    assert main(["import", "in.jsonl"]) == 1
    assert "  line 7: content: must not be blank\n" in capsys.readouterr().out


def test_import_that_was_cut_short_says_how_to_go_on(base: TransferBase, capsys: pytest.CaptureFixture[str]):
    base.completed = False

    assert main(["import", "in.jsonl"]) == 1
    assert capsys.readouterr().err == "kb: Redis is away; give the same command again to go on\n"

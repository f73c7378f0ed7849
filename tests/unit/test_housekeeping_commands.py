"""``kb jobs``, ``kb prune``, ``kb delete``, ``kb duplicates``, ``kb namespaces`` and ``kb backup``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError, UnavailableError
from knowledge_base.interfaces.cli import main, session
from tests.unit.cli_base import NOW, FakeBase

JOB = "0123456789abcdef" * 2
BULK = {"processed": 2, "succeeded": 2, "duplicates": 0, "failed": [], "completed": True}


def job(state: str, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"id": JOB, "kind": "export", "namespace": None, "arguments": {"path": "x"}, "state": state}
    told |= {"cancelling": False, "done": 3, "total": 9, "rate": 1.0, "eta_s": 6.0 if state == "running" else None}
    times = {"created_at": NOW, "started_at": NOW, "finished_at": None}
    return {**told, **times, "error": None, "log": [f"{NOW} queued"], **changes}


class KeptBase(FakeBase):
    """A base that tells what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, ...]] = []
        self.states = ["done"]
        self.bulk = dict(BULK)
        self.ok = True

    def _ask(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.failure:
            raise self.failure

    async def list_jobs(self, *, state: Any = None, namespace: Any = None, limit: int = 100) -> list[dict[str, Any]]:
        self._ask("list", state, namespace, limit)
        return [job("running"), job("lost", total=0, done=0, namespace="acme")]

    async def get_job(self, job_id: str) -> dict[str, Any]:
        self._ask("get", job_id)
        return job(self.states.pop(0) if len(self.states) > 1 else self.states[0])

    async def cancel_job(self, job_id: str) -> dict[str, Any]:
        self._ask("cancel", job_id)
        return job("running", cancelling=True)

    async def prune_facts(self, older_than: Any, by: str, *, filters: Any, dry_run: bool, progress: Any) -> Any:
        self._ask("prune", older_than, by, filters, dry_run)
        progress(2, 2)
        return self.bulk

    async def delete_facts(self, filters: Any, *, dry_run: bool, principals: Any, progress: Any) -> Any:  # type: ignore[override]
        self._ask("delete", filters, dry_run, principals)
        return self.bulk

    async def delete_fact(self, fact_id: str, *, principals: Any) -> bool:
        self._ask("delete one", fact_id, principals)
        return fact_id == "f1"

    async def find_duplicates(self, threshold: float, *, limit: int, filters: Any, progress: Any) -> dict[str, Any]:
        self._ask("duplicates", threshold, limit, filters)
        facts = [
            {"id": name, "similarity": like, "version": 1, "created_at": NOW, "updated_at": NOW}
            for name, like in (("a", 1.0), ("b", 0.97))
        ]
        counts = {"facts": 5, "not_compared": 1, "duplicates": 1, "completed": False}
        return {"namespace": "n", "threshold": threshold, **counts, "groups": [{"similarity": 0.97, "facts": facts}]}

    async def list_namespaces(self) -> list[dict[str, Any]]:
        self._ask("namespaces")
        one = {"facts": 3, "documents": 1, "passages": 9, "pending": 0, "embedding_model": "m", "dimension": 8}
        return [{"namespace": "a", **one, "state": "live"}, {"namespace": "ab", **one, "state": "off"}]

    def _report(self, *asked: Any) -> dict[str, Any]:
        self._ask(*asked)
        target = asked[2] if len(asked) > 2 and asked[0] != "drop" else None
        return {"namespace": asked[1], "target": target, "facts": 3, "documents": 1, "keys": 40, "took_s": 2.0}

    async def copy_namespace(self, source: str, target: str, *, progress: Any) -> dict[str, Any]:
        return self._report("copy", source, target)

    async def rename_namespace(self, source: str, target: str, *, progress: Any) -> dict[str, Any]:
        return self._report("rename", source, target)

    async def drop_namespace(self, namespace: str, *, confirm: str, progress: Any = None) -> dict[str, Any]:
        return self._report("drop", namespace, confirm)

    async def backup(self, path: Any, *, progress: Any) -> dict[str, Any]:
        self._ask("backup", str(path))
        return {"path": str(path), "facts": 3, "documents": 1, "bytes": 99, "checksum": "c0ffee", "took_s": 1.0}

    async def verify_backup(self, path: Any, *, progress: Any) -> dict[str, Any]:
        self._ask("verify", str(path))
        problems = [] if self.ok else ["entry 7 (fact p of a) was not restored"]
        return {
            "path": str(path),
            "ok": self.ok,
            "facts": 3,
            "documents": 1,
            "expired": 2,
            "checksum": "c",
            "problems": problems,
            "took_s": 1.0,
        }


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> KeptBase:
    fake = KeptBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


def test_jobs_are_listed(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["jobs"]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == [JOB, "running", "export"]
    assert "all namespaces" in first
    assert "3/9" in first
    assert "6 s left" in first
    assert "acme" in second
    assert base.asked == [("list", None, None, 100)]


def test_listed_jobs_are_filtered(base: KeptBase):
    assert main(["jobs", "list", "--state", "lost", "--limit", "5", "--namespace", "acme", "--json"]) == 0

    assert base.asked == [("list", "lost", "acme", 5)]


def test_job_is_shown_with_its_log(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["jobs", "show", JOB]) == 0

    out = capsys.readouterr().out
    assert f"{NOW} queued" in out
    assert JOB in out


def test_job_is_cancelled(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["jobs", "cancel", JOB, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["cancelling"] is True
    assert base.asked == [("cancel", JOB)]


@pytest.mark.parametrize(("ends", "code"), [("done", 0), ("failed", 1), ("cancelled", 1), ("lost", 1)])
def test_waiting_ends_with_the_job(base: KeptBase, ends: str, code: int):
    base.states = ["queued", "running", ends]

    assert main(["jobs", "wait", JOB]) == code

    assert len(base.asked) == 3


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "show"],
        ["jobs", "list", JOB],
        ["jobs", "stop", JOB],
        ["prune"],
        ["prune", "--older-than", "soon"],
        ["prune", "--older-than", "-5d"],
        ["delete"],
        ["delete", "f1", "--tag", "t"],
        ["namespaces", "copy", "a"],
        ["namespaces", "rename", "a"],
        ["namespaces", "drop", "a"],
        ["namespaces", "list", "a"],
        ["backup"],
    ],
)
def test_wrong_usage_asks_nothing_of_the_base(base: KeptBase, words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2

    assert base.asked == []
    assert capsys.readouterr().err.startswith("kb: ")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90d", 7_776_000.0), ("12h", 43_200.0), ("1.5m", 90.0), ("2w", 1_209_600.0), ("30", 30.0), ("5s", 5.0)],
)
def test_age_is_read_as_people_write_it(base: KeptBase, written: str, seconds: float):
    assert main(["prune", "--older-than", written, "--by", "created_at", "--tag", "t", "--dry-run"]) == 0

    assert base.asked == [("prune", seconds, "created_at", {"tags": ["t"]}, True)]


def test_pruning_says_what_went(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["prune", "--older-than", "1d"]) == 0
    assert main(["prune", "--older-than", "1d", "--dry-run"]) == 0

    assert capsys.readouterr().out == "2 facts deleted\n2 facts would be deleted\n"


def test_pruning_that_was_cut_short_fails(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    base.bulk |= {"completed": False, "failed": [{"id": "f", "error": "changed"}]}

    assert main(["prune", "--older-than", "1d"]) == 1

    told = capsys.readouterr()
    assert "f: changed" in told.out
    assert "run it again" in told.err


def test_facts_are_deleted_by_filter(base: KeptBase):
    assert main(["delete", "--source", "s", "--principal", "user:ann", "--dry-run"]) == 0

    assert base.asked == [("delete", {"source": "s"}, True, ["user:ann"])]


def test_one_fact_is_deleted(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["delete", "f1"]) == 0
    assert main(["delete", "f2"]) == 1

    assert capsys.readouterr().out == "1 facts deleted\n"


def test_duplicates_are_listed(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["duplicates", "--threshold", "0.9", "--limit", "7"]) == 0

    told = capsys.readouterr()
    assert base.asked == [("duplicates", 0.9, 7, None)]
    first, second, count = told.out.splitlines()
    assert first.split()[:2] == ["1.000", "a"]
    assert second.split()[:2] == ["0.970", "b"]
    assert count == "1 near duplicates in 1 groups of 5 facts"
    assert "1 facts wait" in told.err
    assert "there may be more" in told.err


def test_namespaces_are_listed(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["namespaces"]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["a", "3", "facts", "1", "documents", "9", "passages"]
    assert second.split()[-1] == "off"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["copy", "a", "b"], ("copy", "a", "b")),
        (["rename", "a", "b"], ("rename", "a", "b")),
        (["drop", "a", "--confirm", "a"], ("drop", "a", "a")),
    ],
)
def test_namespaces_are_changed(
    base: KeptBase, capsys: pytest.CaptureFixture[str], words: list[str], asked: tuple[str, ...]
):
    assert main(["namespaces", *words]) == 0
    assert main(["namespaces", *words, "--json"]) == 0

    text, report = capsys.readouterr().out.splitlines()
    assert base.asked == [asked, asked]
    assert "3 facts and 1 documents" in text
    assert json.loads(report)["facts"] == 3


def test_backup_is_written(base: KeptBase, capsys: pytest.CaptureFixture[str]):
    assert main(["backup", "all.jsonl.gz"]) == 0

    assert base.asked == [("backup", "all.jsonl.gz")]
    assert "c0ffee" in capsys.readouterr().out


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_backup_is_verified(base: KeptBase, capsys: pytest.CaptureFixture[str], ok: bool, code: int):
    base.ok = ok

    assert main(["backup", "--verify", "all.jsonl.gz"]) == code

    assert base.asked == [("verify", "all.jsonl.gz")]
    told = capsys.readouterr().out
    assert ("entry 7" in told) is not ok
    assert "2 facts have expired since" in told


@pytest.mark.parametrize(
    "words",
    [["jobs"], ["prune", "--older-than", "1d"], ["duplicates"], ["namespaces"], ["backup", "x"], ["delete", "f1"]],
)
@pytest.mark.parametrize(
    ("failure", "code"), [(UnavailableError("Redis cannot be reached"), 3), (InvalidInputError("path", "is wrong"), 2)]
)
def test_exit_codes_tell_failures_apart(base: KeptBase, words: list[str], failure: Exception, code: int):
    base.failure = failure

    assert main([*words, "--json"]) == code
    assert base.opened == base.closed == 1

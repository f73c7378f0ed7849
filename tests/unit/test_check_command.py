"""``kb check``: what it prints, and the exit code that scripts go by."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from knowledge_base.admin.integrity.findings import ADVICE
from knowledge_base.errors import UnavailableError
from knowledge_base.interfaces.cli import main, session
from knowledge_base.types import FindingKind
from tests.unit.cli_base import NOW, FakeBase

WHOLE = "7 facts, 1 documents, 2 wait for their vectors, 0 were given up\neverything agrees\n"
REASON = "the embedding model failed [red](ValueError)[/red]"


class CheckedBase(FakeBase):
    """A base with facts that were given up."""

    def __init__(self) -> None:
        super().__init__()
        self.parked: list[dict[str, Any]] = []
        self.found: dict[str, int] = {}
        self.mends = True
        self.repairs: list[bool] = []

    def give_up(self, *fact_ids: str) -> None:
        self.parked += [{"id": fact_id, "reason": REASON, "attempts": 8, "since": NOW} for fact_id in fact_ids]

    async def check_integrity(self, *, repair: bool = False, progress: Any = None) -> dict[str, Any]:
        self.repairs.append(repair)
        if self.failure:
            raise self.failure
        progress(7, 7)
        findings = self.found | ({"parked": len(self.parked)} if self.parked else {})
        mended = sum(findings.values()) if repair and self.mends else 0
        return {
            "namespace": self.settings.namespace,
            "facts": 7,
            "documents": 1,
            "pending": 2 + (len(self.parked) if repair else 0),
            "parked": self.parked,
            "findings": findings,
            "examples": [
                *({"kind": "parked", "id": fact["id"]} for fact in self.parked),
                *({"kind": kind, "key": f"{kind}-{n}"} for kind, count in self.found.items() for n in range(count)),
            ],
            "repaired": mended,
            "ok": mended == sum(findings.values()),
        }


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> CheckedBase:
    fake = CheckedBase()
    monkeypatch.setattr(session, "open_base", fake.open)
    return fake


def test_whole_namespace_is_a_success(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    assert main(["check"]) == 0

    assert capsys.readouterr().out == WHOLE
    assert base.repairs == [False]
    assert base.opened == base.closed == 1


def test_what_was_given_up_is_listed_and_fails(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    base.give_up("f1", "f2")

    assert main(["check"]) == 1

    count, first, second, kind, advice = capsys.readouterr().out.splitlines()
    assert count == "7 facts, 1 documents, 2 wait for their vectors, 2 were given up"
    assert kind.startswith("2 parked: ")
    for fact_id, line in (("f1", first), ("f2", second)):
        assert line.split()[0] == fact_id
        assert "after 8 attempts" in line
        assert NOW in line
        assert REASON in line
    assert "kb check --repair" in advice
    assert base.closed == 1


def test_repair_is_passed_on_and_succeeds(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    base.give_up("f1")

    assert main(["check", "--repair"]) == 0

    assert base.repairs == [True]
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 of 1 mended; ")


def test_repair_of_a_whole_namespace_does_nothing(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--repair"]) == 0

    assert capsys.readouterr().out == WHOLE


def test_each_kind_has_a_line_that_says_what_a_repair_does(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    base.found = {"stray_parts": 5, "unknown_keys": 1}

    assert main(["check"]) == 1

    _, stray, unknown, advice = capsys.readouterr().out.splitlines()
    assert stray.startswith("5 stray_parts: ")
    assert stray.endswith("(stray_parts-0, stray_parts-1, stray_parts-2 …); --repair removes them")
    assert unknown.endswith("(unknown_keys-0); --repair does nothing; rename or delete them")
    assert "kb check --repair" in advice


def test_what_cannot_be_mended_fails_although_it_was_tried(base: CheckedBase, capsys: pytest.CaptureFixture[str]):
    base.found = {"unknown_keys": 1}
    base.mends = False

    assert main(["check", "--repair"]) == 1

    assert capsys.readouterr().out.splitlines()[-1] == "none of 1 could be mended"


def test_every_kind_of_finding_is_described():
    assert set(ADVICE) == set(get_args(FindingKind))


@pytest.mark.parametrize(("parked", "code"), [([], 0), (["f1"], 1)])
def test_json_is_the_report_and_nothing_else(
    base: CheckedBase, capsys: pytest.CaptureFixture[str], parked: list[str], code: int
):
    base.give_up(*parked)

    assert main(["check", "--json", "--namespace", "acme"]) == code

    report = json.loads(capsys.readouterr().out)
    assert (report["namespace"], report["facts"], report["ok"]) == ("acme", 7, code == 0)
    assert [fact["id"] for fact in report["parked"]] == parked


def test_unreachable_redis_is_told_from_a_namespace_that_is_not_whole(
    base: CheckedBase, capsys: pytest.CaptureFixture[str]
):
    base.failure = UnavailableError("Redis cannot be reached")

    assert main(["check"]) == 3

    assert "Redis cannot be reached" in capsys.readouterr().err
    assert base.closed == 1

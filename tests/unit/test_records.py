"""Records: between a fact's hash and what callers get."""

from __future__ import annotations

import json

import pytest

from knowledge_base.clock import iso_time
from knowledge_base.facts.records import FIELDS, FactRecord, decode_record, decode_version

STORED: dict[str, str | None] = {
    "content": "Wings lift.",
    "metadata": '{"lang":"en"}',
    "tags": '["a","b"]',
    "source": "web",
    "principals": '["ann"]',
    "document": "d1",
    "version": "3",
    "revision": "3-abc-1",
    "seq": "7",
    "created_at": "1000",
    "updated_at": "2500",
    "expires_at": "99000",
    "indexed": "1",
}


def record(**changes: str | None) -> FactRecord:
    stored = {**STORED, **changes}
    found = decode_record("f1", [stored[field] for field in FIELDS])
    assert found is not None
    return found


def test_hash_becomes_a_fact() -> None:
    assert record().to_fact("acme") == {
        "id": "f1",
        "content": "Wings lift.",
        "metadata": {"lang": "en"},
        "tags": ["a", "b"],
        "source": "web",
        "namespace": "acme",
        "principals": ["ann"],
        "version": 3,
        "created_at": "1970-01-01T00:00:01.000+00:00",
        "updated_at": "1970-01-01T00:00:02.500+00:00",
        "expires_at": "1970-01-01T00:01:39.000+00:00",
        "indexed": True,
    }
    assert record().document_id == "d1"
    assert record().revision == "3-abc-1"


def test_what_was_left_out_is_none() -> None:
    found = record(source="", document="", expires_at="", indexed="0")

    assert (found.source, found.document_id, found.expires_at, found.indexed) == (None, None, None, False)
    assert found.to_fact("acme")["expires_at"] is None


def test_no_hash_is_no_record() -> None:
    assert decode_record("f1", [None] * len(FIELDS)) is None


def test_wrong_number_of_values_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        decode_record("f1", ["only one"])


@pytest.mark.parametrize(
    ("principals", "callers", "visible"),
    [
        ("[]", [], True),
        ("[]", ["ann"], True),
        ('["ann"]', [], False),
        ('["ann"]', ["bob"], False),
        ('["ann"]', ["bob", "ann"], True),
        ('["ann","ops"]', ["ops"], True),
        ('["ann"]', ["*"], False),
        ('["ann"]', ["an", "anna"], False),
    ],
)
def test_fact_is_seen_by_those_it_is_for(principals: str, callers: list[str], visible: bool) -> None:
    assert record(principals=principals).is_visible(callers, now=0) is visible


@pytest.mark.parametrize(("now", "visible"), [(98_999, True), (99_000, False), (99_001, False)])
def test_fact_is_seen_until_it_expires(now: int, visible: bool) -> None:
    assert record().is_visible(["ann"], now) is visible


def test_fact_without_expiry_is_seen_for_ever() -> None:
    assert record(expires_at="").is_visible(["ann"], 10**15)


def test_version_shows_what_history_keeps() -> None:
    snapshot = {key: STORED[key] for key in ("version", "content", "metadata", "tags", "source", "updated_at")}

    assert record().to_version() == decode_version(json.dumps(snapshot))
    assert record().to_version() == {
        "version": 3,
        "content": "Wings lift.",
        "metadata": {"lang": "en"},
        "tags": ["a", "b"],
        "source": "web",
        "updated_at": "1970-01-01T00:00:02.500+00:00",
    }


def test_version_without_source_has_none() -> None:
    snapshot = {**STORED, "source": ""}

    assert decode_version(json.dumps(snapshot))["source"] is None


def test_time_is_in_utc_with_milliseconds() -> None:
    assert iso_time(1_795_246_538_123) == "2026-11-21T07:35:38.123+00:00"

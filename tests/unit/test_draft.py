"""Drafts: the checked arguments of one store, and the names that follow from them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.facts.draft import (
    BULK_KEYS,
    content_digest,
    draft_fact,
    draft_item,
    passage_count,
    revision,
)
from knowledge_base.facts.parts import labels
from knowledge_base.settings import Limits

LIMITS = Limits(content_chars=100)


def test_draft_holds_checked_copies() -> None:
    metadata, tags = {"a": [1]}, [" x ", "y", "x"]

    draft = draft_fact(
        " Wings lift. ",
        metadata,
        namespace="acme",
        limits=LIMITS,
        fact_id="f1",
        tags=tags,
        source=" web ",
        principals=["b", "a"],
        expires_in=timedelta(minutes=1),
        on_duplicate="error",
    )
    metadata["a"].append(2)
    tags.append("z")

    assert (draft.namespace, draft.fact_id, draft.content) == ("acme", "f1", " Wings lift. ")
    assert draft.metadata == {"a": [1]}
    assert draft.tags == ["x", "y"]
    assert draft.source == "web"
    assert draft.principals == ["a", "b"]
    assert draft.expires_in == 60.0
    assert draft.on_duplicate == "error"


def test_draft_has_defaults_and_an_id_of_its_own() -> None:
    first, second = (draft_fact("x", namespace="acme", limits=LIMITS) for _ in range(2))

    assert re.fullmatch(r"[0-9a-f]{32}", first.fact_id)
    assert first.fact_id != second.fact_id
    assert (first.metadata, first.tags, first.source, first.principals) == ({}, [], None, [])
    assert (first.expires_in, first.on_duplicate) == (None, "return")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", " "),
        ("content", "x" * 101),
        ("metadata", []),
        ("fact_id", "a b"),
        ("fact_id", ""),
        ("tags", "x"),
        ("source", ""),
        ("source", 7),
        ("source", "a\x1fb"),
        ("principals", ["*"]),
        ("expires_in", 0),
        ("on_duplicate", "merge"),
        ("on_duplicate", None),
    ],
)
def test_refused_argument_is_named(field: str, value: Any) -> None:
    arguments: dict[str, Any] = {"content": "x", field: value}

    with pytest.raises(InvalidInputError) as caught:
        draft_fact(arguments.pop("content"), namespace="acme", limits=LIMITS, **arguments)

    assert caught.value.field == field


def test_digest_tells_contents_and_principals_apart() -> None:
    digests = {
        content_digest(content, principals)
        for content in ("a", "a ", "A", "ab", "b")
        for principals in ([], ["b"], ["b", "c"], ["bc"])
    }

    assert len(digests) == 20
    assert content_digest("a", ["b"]) == content_digest("a", ("b",))


def test_digest_of_a_draft_ignores_the_order_of_principals_and_everything_else() -> None:
    one = draft_fact("x", {"a": 1}, namespace="acme", limits=LIMITS, principals=["a", "b"], tags=["t"], fact_id="1")
    two = draft_fact("x", namespace="acme", limits=LIMITS, principals=["b", "a", "b"])
    other = draft_fact("x", namespace="acme", limits=LIMITS)

    digests = [content_digest(draft.content, draft.principals) for draft in (one, two, other)]
    assert digests[0] == digests[1] == content_digest("x", ["a", "b"])
    assert digests[0] != digests[2]


def test_revision_names_version_content_and_passages() -> None:
    digest = content_digest("x", [])

    assert revision(3, digest, 12) == f"3-{digest[:12]}-12"
    assert passage_count(revision(3, digest, 12)) == 12
    assert len({revision(1, digest, 1), revision(2, digest, 1), revision(1, digest, 2)}) == 3
    assert revision(1, digest, 1) != revision(1, content_digest("y", []), 1)


def test_labels_are_what_is_filtered_on() -> None:
    found = labels({"lang": "en", "n": [1, 2]}, ["a", "b"], "web", ["ann", "bob"])

    assert found == {
        "principals": "ann\x1fbob",
        "tags": "a\x1fb",
        "source": "web",
        "meta": 'lang="en"\x1fn=1\x1fn=2',
    }


def test_labels_of_an_open_fact_name_everybody() -> None:
    assert labels({}, [], None, []) == {"principals": "*", "tags": "", "source": "", "meta": ""}


def test_item_is_a_draft_with_the_arguments_of_one_store() -> None:
    item = {"content": "x", "metadata": {"a": 1}, "fact_id": "f1", "tags": ["t"], "on_duplicate": "update"}
    before = dict(item)

    draft = draft_item(item, "acme", LIMITS)

    assert (draft.namespace, draft.fact_id, draft.metadata, draft.tags) == ("acme", "f1", {"a": 1}, ["t"])
    assert draft.on_duplicate == "update"
    assert item == before


@pytest.mark.parametrize(("own", "namespace"), [(None, "acme"), ("other", "other")])
def test_item_may_name_its_namespace(own: str | None, namespace: str) -> None:
    assert draft_item({"content": "x", "namespace": own}, "acme", LIMITS).namespace == namespace


@pytest.mark.parametrize(
    ("item", "field", "says"),
    [
        ("text", "facts", "str"),
        (None, "facts", "NoneType"),
        ({}, "content", "missing"),
        ({"content": "x", "colour": 1}, "facts", "colour"),
        ({"content": "x", 7: 1}, "facts", "7"),
        ({"content": "x", "namespace": "a b"}, "namespace", "match"),
        ({"content": ""}, "content", "blank"),
        ({"content": "x", "tags": 7}, "tags", "list"),
    ],
)
def test_refused_item_says_why(item: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        draft_item(item, "acme", LIMITS)

    assert caught.value.field == field


def test_items_take_what_a_store_takes() -> None:
    assert {"content", "metadata", "fact_id", "tags", "source", "principals", "expires_in"} < BULK_KEYS

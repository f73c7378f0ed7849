"""One tenant never sees another: namespaces and principals in every read and write path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import (
    FactNotFoundError,
    InvalidInputError,
    PermissionDeniedError,
    VersionConflictError,
)
from tests.support.control import Control
from tests.support.facts import found, ids, only

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

ANN = ["user:ann"]
MODES = ("hybrid", "vector", "text")
SECRET = "the secret recipe"


async def has_history(kb: KnowledgeBase, fact_id: str, **scope: Any) -> bool:
    try:
        return bool(await kb.get_fact_history(fact_id, **scope))
    except FactNotFoundError:
        return False


async def everything_seen(kb: KnowledgeBase, fact_id: str, **scope: Any) -> set[str]:
    """The read paths, and the writes that would tell, through which a caller gets at a fact."""
    either = {"or": [{"tags": "t"}, {"source": "s"}]}
    shown = {
        "get by id": fact_id in {fact["id"] for fact in await kb.get_fact(fact_id, **scope)},
        "get by query": fact_id in await ids(kb, query=SECRET, **scope),
        "listing": fact_id in await ids(kb, **scope),
        "filtered listing": fact_id in await ids(kb, filters={"fact_id": fact_id}, **scope),
        "negated listing": fact_id in await ids(kb, filters={"not": {"tags": "no such tag"}}, **scope),
        "iteration": fact_id in [fact["id"] async for fact in kb.iter_facts(**scope)],
        "history": await has_history(kb, fact_id, **scope),
        "delete by filter": (await kb.delete_facts({"fact_id": fact_id}, dry_run=True, **scope))["succeeded"] > 0,
    }
    for mode in MODES:
        shown[f"search {mode}"] = fact_id in await found(kb, SECRET, mode=mode, **scope)
        shown[f"filtered search {mode}"] = fact_id in await found(kb, SECRET, mode=mode, filters=either, **scope)
    return {path for path, is_shown in shown.items() if is_shown}


EVERY_PATH = {
    *["get by id", "get by query", "listing", "filtered listing", "negated listing", "iteration", "history"],
    *[f"search {mode}" for mode in MODES],
    *[f"filtered search {mode}" for mode in MODES],
    "delete by filter",
}


@pytest.fixture
async def guarded(stub_kb: KnowledgeBase) -> KnowledgeBase:
    """Holds one open fact, one of Ann's, and one of the operators or Bob."""
    await stub_kb.store_fact(f"{SECRET} of everybody", fact_id="open", tags=["t"], source="s")
    await stub_kb.store_fact(f"{SECRET} of ann", fact_id="ann", tags=["t"], source="s", principals=ANN)
    await stub_kb.store_fact(
        f"{SECRET} of ops", fact_id="ops", tags=["t"], source="s", principals=["group:ops", "user:bob"]
    )
    return stub_kb


@pytest.mark.parametrize(
    ("principals", "visible"),
    [
        (None, {"open"}),
        ([], {"open"}),
        (["user:ann"], {"open", "ann"}),
        (["user:bob"], {"open", "ops"}),
        (["group:ops", "user:carl"], {"open", "ops"}),
        (["user:ann", "user:bob"], {"open", "ann", "ops"}),
        (["user:an"], {"open"}),
        (["user:anna"], {"open"}),
        (["User:Ann"], {"open"}),
        (["user:an*"], {"open"}),
        (["user:ann|user:bob"], {"open"}),
        (["user:ann,user:bob"], {"open"}),
        (["user", "ann"], {"open"}),
        (["x} | @principals:{user:ann"], {"open"}),
        (["\\", "\\*", "%", "?", "-user:zed", "!user:zed"], {"open"}),
    ],
    ids=lambda value: str(sorted(value or ())),
)
async def test_fact_is_seen_by_its_principals_only(
    guarded: KnowledgeBase, principals: list[str] | None, visible: set[str]
) -> None:
    seen = {name: await everything_seen(guarded, name, principals=principals) for name in ("open", "ann", "ops")}

    assert seen == {name: (EVERY_PATH if name in visible else set()) for name in seen}


@pytest.mark.parametrize(
    "own", ["a,b", "a|b", "a b", "A", "*a", "a*", "a\\", "{a}", "漢", "a:b", "ä", "-a", "__open__"]
)
async def test_principal_of_odd_characters_guards_too(stub_kb: KnowledgeBase, own: str) -> None:
    await stub_kb.store_fact(SECRET, fact_id="f", tags=["t"], principals=[own])

    for stranger in (None, ["a"], ["b"], ["a", "b"], ["{a"], ["a}"], ["*a*"], ["__"]):
        assert await everything_seen(stub_kb, "f", principals=stranger) == set(), stranger
    assert await everything_seen(stub_kb, "f", principals=["z", own]) == EVERY_PATH


async def test_everybody_is_no_principal(guarded: KnowledgeBase) -> None:
    for call in (
        lambda: guarded.get_fact(principals=["*"]),
        lambda: guarded.search(SECRET, principals=["user:ann", " * "]),
        lambda: guarded.store_fact("x", principals=["*"]),
        lambda: guarded.delete_facts({"tags": "t"}, principals=["*"]),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await call()
        assert refused.value.field == "principals"


@pytest.mark.parametrize("principals", [None, ["user:bob"]])
async def test_invisible_fact_can_neither_be_changed_nor_deleted(
    guarded: KnowledgeBase, principals: list[str] | None
) -> None:
    before = await only(guarded, "ann", principals=ANN)

    with pytest.raises(FactNotFoundError):
        await guarded.update_fact("ann", content="mine now", principals=principals)
    with pytest.raises(FactNotFoundError):
        await guarded.update_fact("ann", metadata={"n": 1}, expected_version=7, principals=principals)
    deleted = await guarded.delete_fact("ann", principals=principals)
    also = await guarded.delete_fact("ann", expected_version=7, principals=principals)
    swept = await guarded.delete_facts({"fact_id": ["ann"]}, principals=principals)

    assert (deleted, also, swept["succeeded"]) == (False, False, 0)
    assert await only(guarded, "ann", principals=ANN) == before


async def test_visible_fact_can_be_changed_and_deleted(guarded: KnowledgeBase) -> None:
    updated = await guarded.update_fact("ann", content=f"{SECRET}, improved", principals=[*ANN, "group:x"])
    still_guarded = await everything_seen(guarded, "ann")
    deleted = await guarded.delete_fact("ann", principals=ANN)

    assert (updated["version"], updated["principals"]) == (2, ANN)
    assert still_guarded == set()
    assert deleted is True


async def test_delete_by_filter_takes_only_what_the_caller_sees(guarded: KnowledgeBase) -> None:
    result = await guarded.delete_facts({"tags": "t"}, principals=ANN)

    assert result["succeeded"] == 2
    assert await ids(guarded, principals=["user:ann", "user:bob"]) == {"ops"}


async def test_same_text_of_two_principals_is_two_facts(stub_kb: KnowledgeBase) -> None:
    owners: list[list[str] | None] = [None, ["user:ann"], ["user:bob"], ["user:ann", "user:bob"], ["user:ann,user:bob"]]

    results = [await stub_kb.store_fact(SECRET, principals=owner) for owner in owners]

    assert [result["status"] for result in results] == ["success"] * len(owners)
    assert len({result["fact_id"] for result in results}) == len(owners)


async def test_order_of_principals_does_not_make_another_fact(stub_kb: KnowledgeBase) -> None:
    first = await stub_kb.store_fact(SECRET, principals=["user:ann", "user:bob"])

    second = await stub_kb.store_fact(SECRET, principals=["user:bob", "user:ann", "user:bob"])

    assert (second["status"], second["fact_id"]) == ("duplicate", first["fact_id"])


async def test_storing_under_the_id_of_an_invisible_fact_changes_nothing(guarded: KnowledgeBase) -> None:
    before = await only(guarded, "ann", principals=ANN)

    for principals in (None, ["user:bob"]):
        for on_duplicate in ("return", "update", "error"):
            with pytest.raises((VersionConflictError, PermissionDeniedError)):
                await guarded.store_fact("taken over", fact_id="ann", principals=principals, on_duplicate=on_duplicate)

    assert await only(guarded, "ann", principals=ANN) == before


def other_names(namespace: str) -> list[str]:
    return [f"{namespace}:x", f"{namespace}.", f"x{namespace}", namespace.upper(), f"{namespace}:passage:1"]


async def test_fact_of_another_namespace_is_seen_nowhere(stub_kb: KnowledgeBase, namespace: str) -> None:
    await stub_kb.store_fact(SECRET, fact_id="f", tags=["t"], source="s")

    for other in other_names(namespace):
        await stub_kb.store_fact("something else entirely", namespace=other)
        assert await everything_seen(stub_kb, "f", namespace=other) == set(), other
        assert (await stub_kb.get_stats(namespace=other))["facts"] == 1
    assert await everything_seen(stub_kb, "f") == EVERY_PATH
    assert await everything_seen(stub_kb, "f", namespace=namespace) == EVERY_PATH


async def test_namespaces_do_not_share_ids_texts_or_deletions(stub_kb: KnowledgeBase, namespace: str) -> None:
    names = [namespace, *other_names(namespace)]
    results = [await stub_kb.store_fact(SECRET, {"of": name}, fact_id="f", namespace=name) for name in names]

    await stub_kb.update_fact("f", content="changed", namespace=names[1])
    await stub_kb.delete_fact("f", namespace=names[2])
    await stub_kb.delete_facts({"fact_id": "f"}, namespace=names[3])

    assert [result["status"] for result in results] == ["success"] * len(names)
    assert [len(await stub_kb.get_fact("f", namespace=name)) for name in names] == [1, 1, 0, 0, 1, 1]
    assert (await only(stub_kb, "f"))["content"] == SECRET
    assert (await only(stub_kb, "f"))["namespace"] == namespace
    assert (await only(stub_kb, "f", namespace=names[1]))["content"] == "changed"


async def test_each_namespace_has_keys_and_an_index_of_its_own(
    stub_kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    other = f"{namespace}:x"

    await stub_kb.store_fact(SECRET)
    await stub_kb.store_fact(SECRET, namespace=other)

    assert control.indexes(namespace)
    assert control.indexes(other)
    assert not control.indexes(namespace) & control.indexes(other)
    assert control.keys(namespace)
    assert control.keys(other)


async def test_reading_an_empty_namespace_finds_nothing_and_makes_nothing(
    stub_kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    empty = f"{namespace}-empty"

    assert await everything_seen(stub_kb, "f", namespace=empty) == set()
    assert (await stub_kb.get_stats(namespace=empty))["facts"] == 0
    assert await stub_kb.delete_fact("f", namespace=empty) is False
    assert control.keys(empty) == set()
    assert control.indexes(empty) == set()


@pytest.mark.parametrize("bad", ["", " ", "a b", "a}b", "{a}", "a*", "é", "a/b", "a\n", "n" * 129, 7, b"a"], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda kb, name: kb.store_fact("x", namespace=name),
        lambda kb, name: kb.store_facts([{"content": "x"}], namespace=name),
        lambda kb, name: kb.get_fact(namespace=name),
        lambda kb, name: kb.search("x", namespace=name),
        lambda kb, name: kb.update_fact("f", content="x", namespace=name),
        lambda kb, name: kb.delete_fact("f", namespace=name),
        lambda kb, name: kb.delete_facts({"tags": "t"}, namespace=name),
        lambda kb, name: kb.get_fact_history("f", namespace=name),
        lambda kb, name: anext(kb.iter_facts(namespace=name)),
        lambda kb, name: kb.get_stats(namespace=name),
    ],
    ids=["store", "bulk", "get", "search", "update", "delete", "delete many", "history", "iterate", "stats"],
)
async def test_name_that_is_no_namespace_is_refused(
    open_kb: Callable[..., KnowledgeBase], call: Callable[..., Any], bad: Any
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await call(open_kb(), bad)

    assert refused.value.field == "namespace"

"""Namespaces are copied and renamed beside traffic, with everything in them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.keyspace import Keyspace
from tests.support.bookkeeping import settles
from tests.support.control import Control
from tests.support.embedded import client_of
from tests.support.facts import found
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

ANN = ["user:ann"]
LONG = "\n\n".join(f"Sentence {n} about walruses and ice." for n in range(120))


@pytest.fixture
async def filled(stub_kb: KnowledgeBase) -> KnowledgeBase:
    """Facts of every kind, with history, expiry and principals, and a document."""
    await stub_kb.store_fact(
        "penguins swim", fact_id="p", tags=["t", "u"], source="s", metadata={"n": {"é": [1, None]}}
    )
    await stub_kb.update_fact("p", content="penguins dive")
    await stub_kb.update_fact("p", tags=["t"])
    await stub_kb.store_fact("puffins fly", fact_id="q", principals=ANN, expires_in=3_600)
    await stub_kb.store_fact(LONG, fact_id="long")
    await stub_kb.store_facts({"content": f"gull number {n}", "fact_id": f"g{n}"} for n in range(200))
    await stub_kb.add_document("# Whales\n\nWhales sing in the deep.", document_id="doc", tags=["d"])
    return stub_kb


async def everything(kb: KnowledgeBase, namespace: str) -> dict[str, Any]:
    """All that callers can see of a namespace, but its name."""
    seen: dict[str, Any] = {}
    async for fact in kb.iter_facts(namespace=namespace, principals=ANN):
        history = await kb.get_fact_history(fact["id"], namespace=namespace, principals=ANN)
        seen[fact["id"]] = ({**fact, "namespace": ""}, history)
    for document in await kb.list_documents(namespace=namespace, principals=ANN):
        seen[document["id"]] = {**document, "namespace": ""}
    return seen


async def test_copy_has_everything(filled: KnowledgeBase, namespace: str, control: Control) -> None:
    target = f"{namespace}.copy"
    before = await everything(filled, namespace)
    keys = control.dump(namespace)
    progress: list[tuple[int, int]] = []

    report = await filled.copy_namespace(namespace, target, progress=lambda *seen: progress.append(seen))

    assert (report["target"], report["facts"], report["documents"]) == (target, 203, 1)
    assert await everything(filled, target) == before
    assert control.dump(namespace) == keys
    assert progress[-1] == (204, 204)
    assert not {key for key in control.keys(target) if "cop" in key.split("}:")[1].split(":")[0]}
    for name in (namespace, target):
        assert await found(filled, "penguins dive", mode="vector", top_k=1, namespace=name) == ["p"]
        assert await found(filled, "whales sing", mode="text", namespace=name) == ["doc"]
    assert (await filled.check_integrity(namespace=target))["ok"]


async def test_books_of_a_copy_agree(filled: KnowledgeBase, namespace: str, redis_url: str) -> None:
    await filled.delete_document("doc")

    await filled.copy_namespace(namespace, f"{namespace}.copy")

    with client_of(redis_url) as client:
        assert await settles(client, f"{namespace}.copy", 10.0) == []


async def test_copy_needs_no_model(filled: KnowledgeBase, namespace: str, stub_embedding: StubEmbedding) -> None:
    await filled.delete_document("doc")
    before = len(stub_embedding.texts)

    await filled.copy_namespace(namespace, f"{namespace}-2")

    assert stub_embedding.texts[before:] == []
    assert (await filled.get_stats(namespace=f"{namespace}-2"))["pending"] == 0


async def test_copy_is_a_namespace_of_its_own(filled: KnowledgeBase, namespace: str) -> None:
    target = f"{namespace}:b"
    await filled.copy_namespace(namespace, target)

    await filled.update_fact("p", content="penguins rest", namespace=target)
    await filled.delete_fact("long", namespace=namespace)

    assert (await filled.get_fact("p"))[0]["content"] == "penguins dive"
    assert len(await filled.get_fact("long", namespace=target)) == 1


@pytest.mark.parametrize(
    ("source", "target", "field"),
    [
        ("{0}", "{0}", "target"),
        ("{0}", "{0}.taken", "target"),
        ("{0}.none", "{0}.new", "source"),
        ("{0}", "a b", "namespace"),
        ("*", "{0}.new", "namespace"),
    ],
)
async def test_wrong_names_are_refused(
    filled: KnowledgeBase, control: Control, namespace: str, source: str, target: str, field: str
) -> None:
    await filled.store_fact("taken", namespace=f"{namespace}.taken")
    names = source.format(namespace), target.format(namespace)

    for call in (filled.copy_namespace, filled.rename_namespace):
        with pytest.raises(InvalidInputError) as refused:
            await call(*names)
        assert refused.value.field == field

    assert len(await everything(filled, f"{namespace}.taken")) == 1
    assert control.keys(f"{namespace}.new") == set()
    assert control.keys(f"{namespace}.none") == set()


async def test_broken_off_copy_is_gone_on_with(filled: KnowledgeBase, namespace: str) -> None:
    target = f"{namespace}.copy"

    def cancel(*_: int) -> None:
        copying.cancel()

    copying = asyncio.create_task(filled.copy_namespace(namespace, target, progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await copying
    half = len(await everything(filled, target))

    with pytest.raises(InvalidInputError):
        await filled.copy_namespace(f"{namespace}.other", target)
    await filled.copy_namespace(namespace, target)

    assert 0 < half < 204
    assert await everything(filled, target) == await everything(filled, namespace)
    with pytest.raises(InvalidInputError, match="exists"):
        await filled.copy_namespace(namespace, target)


async def test_only_one_copies_at_a_time(filled: KnowledgeBase, namespace: str) -> None:
    target = f"{namespace}.copy"

    outcomes = await asyncio.gather(
        *(filled.copy_namespace(namespace, target) for _ in range(3)), return_exceptions=True
    )

    refused = [outcome for outcome in outcomes if isinstance(outcome, KnowledgeBaseError)]
    assert len(refused) == 2
    assert await everything(filled, target) == await everything(filled, namespace)


async def test_rename_moves_everything(filled: KnowledgeBase, namespace: str, control: Control) -> None:
    target = f"{namespace}.new"
    before = await everything(filled, namespace)

    report = await filled.rename_namespace(namespace, target)

    assert (report["namespace"], report["target"], report["facts"], report["documents"]) == (namespace, target, 203, 1)
    assert report["keys"] > 200
    assert await everything(filled, target) == before
    assert control.keys(namespace) == set()
    assert control.indexes(namespace) == set()
    names = {one["namespace"] for one in await filled.list_namespaces()}
    assert target in names
    assert namespace not in names
    assert await found(filled, "penguins dive", mode="vector", top_k=1, namespace=target) == ["p"]


async def test_what_was_acknowledged_during_a_rename_is_under_the_new_name(
    filled: KnowledgeBase, namespace: str
) -> None:
    target = f"{namespace}.new"
    acknowledged: dict[str, str] = {}
    deleted: set[str] = set()
    refused = 0
    renamed = asyncio.Event()

    async def write(writer: int) -> None:
        nonlocal refused
        number = 0
        while not renamed.is_set():
            number += 1
            fact_id = f"w{writer}-{number}"
            try:
                await filled.store_fact(f"{fact_id} was written", fact_id=fact_id, namespace=namespace)
                acknowledged[fact_id] = f"{fact_id} was written"
                changed = await filled.update_fact(f"g{writer}", content=f"gull of {fact_id}", namespace=namespace)
                acknowledged[changed["id"]] = changed["content"]
                gone = f"g{100 + writer * 10 + number}"
                if number < 9 and await filled.delete_fact(gone, namespace=namespace):
                    deleted.add(gone)
            except KnowledgeBaseError:
                refused += 1
                if await filled.get_fact(fact_id, namespace=target):
                    return
                await asyncio.sleep(0.01)

    writers = [asyncio.create_task(write(writer)) for writer in range(4)]
    await eventually(lambda: len(acknowledged) > 10)
    await filled.rename_namespace(namespace, target)
    renamed.set()
    await asyncio.gather(*writers)
    # What was written after the end is a new namespace of the old name.
    there = {key: value[0] for key, value in (await everything(filled, target)).items() if key != "doc"}
    late = await everything(filled, namespace)

    missing = {
        fact_id
        for fact_id, content in acknowledged.items()
        if fact_id not in late and there.get(fact_id, {}).get("content") != content
    }
    assert missing == set()
    assert deleted
    assert not deleted & set(there)
    assert refused


async def test_broken_off_rename_leaves_the_source_usable(filled: KnowledgeBase, namespace: str) -> None:
    target = f"{namespace}.new"
    before = await everything(filled, namespace)

    def cancel(*_: int) -> None:
        renaming.cancel()

    renaming = asyncio.create_task(filled.rename_namespace(namespace, target, progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await renaming

    await filled.store_fact("written in between", fact_id="between")
    await filled.delete_fact("g7")
    expected = await everything(filled, namespace)
    await filled.rename_namespace(namespace, target)

    assert set(expected) ^ set(before) == {"between", "g7"}
    assert await everything(filled, target) == expected


@pytest.mark.parametrize("lost", ["half", "all but the record", "all"])
async def test_rename_that_ended_while_it_removed_loses_nothing(
    filled: KnowledgeBase, namespace: str, control: Control, lost: str
) -> None:
    target = f"{namespace}.new"
    before = await everything(filled, namespace)
    services = await filled._services.start()
    remove = services.namespaces.remove

    async def dying(name: str, progress: Any) -> int:
        generation = Keyspace(name).generation
        keys = sorted(control.keys(name) - {generation})
        gone = keys[::2] if lost == "half" else keys
        control.run("UNLINK", *gone, *([generation] if lost == "all" else []))
        raise UnavailableError("as if the process had been killed")

    services.namespaces.remove = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(UnavailableError):
        await filled.rename_namespace(namespace, target)
    services.namespaces.remove = remove  # type: ignore[method-assign]

    await filled.rename_namespace(namespace, target)

    assert await everything(filled, target) == before
    assert control.keys(namespace) == set()
    assert not {key for key in control.keys(target) if key in (Keyspace(target).copying, Keyspace(target).copied)}


async def test_source_that_is_dropped_during_a_rename_takes_no_copy_along(
    filled: KnowledgeBase, namespace: str, control: Control
) -> None:
    target = f"{namespace}.new"
    dropping: list[asyncio.Task[Any]] = []

    def drop_once(*_: Any) -> None:
        if not dropping:
            dropping.append(asyncio.create_task(filled.drop_namespace(namespace, confirm=namespace)))

    with pytest.raises(KnowledgeBaseError):
        await filled.rename_namespace(namespace, target, progress=drop_once)
    await dropping[0]

    assert control.keys(namespace) == set()
    assert len(await everything(filled, target)) > 0

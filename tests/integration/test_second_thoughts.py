"""What can go wrong between two callers of one fact, and when a model refuses one of many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knowledge_base import (
    BreakerSettings,
    InvalidInputError,
    KnowledgeBase,
    KnowledgeBaseError,
    PermissionDeniedError,
    UnavailableError,
    VersionConflictError,
)
from tests.support.control import Control
from tests.support.embeddings import StubEmbedding
from tests.support.facts import found, ids, only
from tests.support.polling import eventually


class PickyEmbedding(StubEmbedding):
    """A model that refuses one text and takes all others."""

    def _vector(self, text: str) -> list[float]:
        if "unspeakable" in text:
            raise ValueError("refused")
        return super()._vector(text)


async def test_update_of_a_duplicate_never_shows_content_to_others_than_was_asked(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("public text", fact_id="open")
    await stub_kb.store_fact("shared text", fact_id="shared", principals=["user:ann", "user:bob"])

    for fact_id in ("open", "shared"):
        with pytest.raises(PermissionDeniedError):
            await stub_kb.store_fact("ann's salary", fact_id=fact_id, principals=["user:ann"], on_duplicate="update")

    assert (await only(stub_kb, "open"))["content"] == "public text"
    assert await found(stub_kb, "salary", mode="text", principals=["user:bob"]) == []


async def test_update_of_a_fact_that_was_stored_anew_meanwhile_is_refused(
    stub_kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub_kb.store_fact("alpha content", {"secret": "old"}, fact_id="f")
    repository = (await stub_kb._services.start()).repository
    switch = repository.update

    async def late(*arguments: Any) -> Any:
        monkeypatch.setattr(repository, "update", switch)
        await stub_kb.delete_fact("f")
        await stub_kb.store_fact("brand new", {"n": 1}, fact_id="f", tags=["fresh"])
        return await switch(*arguments)

    monkeypatch.setattr(repository, "update", late)

    with pytest.raises(VersionConflictError):
        await stub_kb.update_fact("f", tags=["old"], expected_version=1)

    fact = await only(stub_kb, "f")
    assert (fact["content"], fact["metadata"], fact["tags"]) == ("brand new", {"n": 1}, ["fresh"])
    assert await found(stub_kb, "brand new", mode="text") == ["f"]


async def test_fact_that_is_stored_again_lives_as_long_as_was_asked_last(
    stub_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    await stub_kb.store_fact("the code is seven", fact_id="f", expires_in=0.6)
    await stub_kb.store_fact("the door is green", fact_id="g", expires_in=0.6)

    assert (await stub_kb.store_fact("the code is seven"))["status"] == "duplicate"
    assert (await stub_kb.store_fact("the door is green", expires_in=3600))["status"] == "duplicate"
    await stub_kb.store_fact("a clock", fact_id="clock", expires_in=0.6)
    await eventually(lambda: control_has_none(control, namespace, "clock"), within=30)

    assert await ids(stub_kb) == {"f", "g"}
    assert (await only(stub_kb, "f"))["expires_at"] is None
    assert (await only(stub_kb, "g"))["expires_at"] is not None
    assert await found(stub_kb, "code", mode="text") == ["f"]
    assert await found(stub_kb, "door green", mode="vector", top_k=1) == ["g"]


def control_has_none(control: Control, namespace: str, fact_id: str) -> bool:
    return not control.run("EXISTS", f"kb:{{{namespace}}}:fact:{fact_id}")


async def test_expired_facts_leave_redis_by_themselves(
    stub_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    for number in range(5):
        await stub_kb.store_fact(f"session secret {number}", fact_id=f"s{number}", expires_in=0.1)

    await eventually(lambda: all(control_has_none(control, namespace, f"s{number}") for number in range(5)), within=20)


async def test_one_text_that_the_model_refuses_does_not_hold_up_the_others(open_kb: Any) -> None:
    model = PickyEmbedding(model_name="picky")
    kb = open_kb(model, breaker=BreakerSettings(failures=5, reset_after=0.2))
    await kb.store_fact("warm")
    model.become("failing")
    good = [f"good fact {number}" for number in range(6)]
    await kb.store_facts([{"content": text, "fact_id": f"f{at}"} for at, text in enumerate([*good, "unspeakable"])])
    model.become("well")

    async def all_good_are_indexed() -> bool:
        return all([(await only(kb, f"f{number}"))["indexed"] for number in range(6)])

    await eventually(all_good_are_indexed, within=30)
    assert not (await only(kb, "f6"))["indexed"]
    assert (await kb.search("good fact"))["degraded"] == []


async def test_long_facts_are_indexed_when_the_model_is_back(open_kb: Any) -> None:
    model = StubEmbedding(model_name="stub")
    kb = open_kb(model, breaker=BreakerSettings(failures=2, reset_after=0.2))
    await kb.store_fact("warm")
    model.become("failing")
    text = " ".join(f"Sentence {number} of a long text." for number in range(4_000))
    stored = await kb.store_facts([{"content": f"{number} {text}", "fact_id": f"f{number}"} for number in range(3)])
    assert stored["succeeded"] == 3
    model.become("well")

    async def all_are_indexed() -> bool:
        return bool((await kb.get_stats())["pending"] == 0)

    await eventually(all_are_indexed, within=40)
    assert all([(await only(kb, f"f{number}"))["indexed"] for number in range(3)])


async def test_fact_that_changed_after_it_matched_is_not_deleted(
    stub_kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub_kb.store_fact("one", fact_id="f", tags=["old"])
    await stub_kb.store_fact("two", fact_id="g", tags=["old"])
    repository = (await stub_kb._services.start()).repository
    delete = repository.delete

    async def late(generation: Any, fact_id: str, *rest: Any) -> bool:
        if fact_id == "f":
            await stub_kb.update_fact("f", tags=["keep"])
        return await delete(generation, fact_id, *rest)

    monkeypatch.setattr(repository, "delete", late)

    result = await stub_kb.delete_facts({"tags": "old"})

    assert (result["processed"], result["succeeded"], [failure["id"] for failure in result["failed"]]) == (2, 1, ["f"])
    assert await ids(stub_kb) == {"f"}


async def test_labels_that_would_weigh_too_much_are_refused(stub_kb: KnowledgeBase) -> None:
    metadata = {f"key{number}": f"value {number}" for number in range(2_000)}

    assert (await stub_kb.store_fact("short", metadata))["status"] == "success"
    with pytest.raises(InvalidInputError) as caught:
        await stub_kb.store_fact("Many words stand here. " * 40_000, metadata)

    assert caught.value.field == "metadata"
    assert (await stub_kb.get_stats())["facts"] == 1


async def test_close_that_was_given_up_on_is_finished_by_the_next(open_kb: Any) -> None:
    kb = open_kb()
    await kb.store_fact("x")

    closing = asyncio.create_task(kb.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await kb.close()

    with pytest.raises(UnavailableError):
        await kb.get_stats()


async def test_key_that_something_else_has_written_is_a_clear_error(
    stub_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    await stub_kb.store_fact("x")
    control.run("RPUSH", f"kb:{{{namespace}}}:fact:foreign", "item")

    with pytest.raises(KnowledgeBaseError, match="something else has written"):
        await stub_kb.get_fact("foreign")


@pytest.mark.parametrize("arguments", [{"limit": 10**5_000}, {"filters": {"metadata.x": 10**5_000}}])
async def test_number_without_end_is_refused(stub_kb: KnowledgeBase, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        await stub_kb.get_fact(**arguments)

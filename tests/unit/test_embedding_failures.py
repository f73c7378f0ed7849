"""The embedding service: bounded, and honest about a model that fails."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from knowledge_base.connection.deadline import deadline
from knowledge_base.embedding import service as service_module
from knowledge_base.errors import (
    CircuitOpenError,
    EmbeddingUnavailableError,
    KnowledgeBaseError,
    OperationTimeoutError,
    OverloadedError,
    UnavailableError,
)
from tests.support.fake_redis import Clock
from tests.support.polling import eventually
from tests.support.scripted_embedding import NewService, ScriptedEmbedding

SHORT = 0.05
SECRET = "hunter2"


@pytest.mark.parametrize("error", [RuntimeError(SECRET), OSError(SECRET), KeyError(SECRET)])
async def test_failure_of_the_model_is_ours_without_its_text(
    new_embedding_service: NewService, model: ScriptedEmbedding, error: Exception
) -> None:
    model.then(error)

    with pytest.raises(EmbeddingUnavailableError) as caught:
        await new_embedding_service().embed_passages([SECRET])

    assert SECRET not in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert caught.value.__cause__ is error
    assert caught.value.retryable


async def test_timeout_of_the_model_itself_is_a_timeout(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()
    model.then(TimeoutError(SECRET))

    with pytest.raises(OperationTimeoutError) as caught:
        await service.embed_passages(["a"])

    assert SECRET not in str(caught.value)
    assert service.breakers()[0]["failures"] == 1


async def test_our_own_errors_pass_and_do_not_count(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()
    own = KnowledgeBaseError("mine")
    model.then(own)

    with pytest.raises(KnowledgeBaseError) as caught:
        await service.embed_passages(["a"])

    assert caught.value is own
    assert service.breakers()[0]["failures"] == 0


async def test_failing_model_is_left_alone_until_a_probe_succeeds(
    new_embedding_service: NewService, model: ScriptedEmbedding, clock: Clock
) -> None:
    service = new_embedding_service()
    model.become("failing")
    for _ in range(3):
        with pytest.raises(EmbeddingUnavailableError):
            await service.embed_query("a")

    with pytest.raises(CircuitOpenError) as caught:
        await service.embed_query("a")

    assert len(model.queries) == 3
    assert (caught.value.circuit, caught.value.retry_after) == ("embedding", 10.0)
    model.become("well")
    clock.pass_by(10.0)
    assert len(await service.embed_query("a")) == 2
    assert service.breakers()[0]["state"] == "closed"


async def test_hanging_model_is_given_up_and_counts(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service(timeout=SHORT)
    await service.load()
    model.become("hanging")

    with pytest.raises(OperationTimeoutError):
        await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1


async def test_callers_deadline_ends_the_wait_and_counts(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service()
    await service.load()
    model.become("hanging")

    with pytest.raises(OperationTimeoutError):
        async with deadline("search", SHORT):
            await service.embed_query("a")

    assert service.breakers()[0]["failures"] == 1


async def test_cancelled_caller_does_not_count(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()
    model.become("hanging")
    task = asyncio.create_task(service.embed_query("a"))
    await eventually(lambda: model.queries)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert service.breakers()[0]["failures"] == 0


async def test_no_more_requests_are_under_way_than_agreed_and_too_many_are_refused(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service(threads=4, max_concurrent_requests=2, max_waiting_requests=1)
    await service.load()
    model.become("hanging")
    running = [asyncio.create_task(service.embed_query(query)) for query in "ab"]
    await eventually(lambda: len(model.queries) == 2)
    waiting = asyncio.create_task(service.embed_query("c"))
    for _ in range(3):
        await asyncio.sleep(0)

    with pytest.raises(OverloadedError):
        await service.embed_query("d")

    assert len(model.queries) == 2
    model.become("well")
    assert len(await asyncio.gather(*running, waiting)) == 3
    assert sorted(model.queries) == ["a", "b", "c"]


async def test_wait_for_a_turn_is_bounded_by_the_callers_deadline(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service(threads=4, max_concurrent_requests=1)
    await service.load()
    model.become("hanging")
    running = asyncio.create_task(service.embed_query("a"))
    await eventually(lambda: model.queries)

    with pytest.raises((OverloadedError, OperationTimeoutError)):
        async with deadline("search", SHORT):
            await service.embed_query("b")

    assert model.queries == ["a"]
    assert service.breakers()[0]["failures"] == 0
    model.become("well")
    await running


async def test_cancelled_batches_leave_no_task(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(batch_size=1, threads=2)
    await service.load()
    before = asyncio.all_tasks()
    model.become("hanging")
    task = asyncio.create_task(service.embed_passages(["a", "b", "c", "d"]))
    await eventually(lambda: len(model.texts) == 2)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await eventually(lambda: asyncio.all_tasks() == before)
    model.become("well")
    await eventually(lambda: service.stats()["passage embedding threads"]["in_use"] == 0)
    assert len(model.texts) == 2


async def test_failing_batch_ends_the_others(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service(timeout=10.0, batch_size=1, threads=1)
    await service.load()
    before = asyncio.all_tasks()
    model.then(RuntimeError("away"))

    with pytest.raises(EmbeddingUnavailableError):
        await service.embed_passages(["a", "b", "c", "d"])

    await eventually(lambda: asyncio.all_tasks() == before)
    assert len(model.texts) <= 1
    assert len(await service.embed_passages(["e"])) == 1


async def test_model_is_loaded_once(new_embedding_service: NewService, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = service_module
    loaded: list[str] = []
    load = module.load_model

    def counted(*arguments: Any) -> Any:
        loaded.append("loaded")
        return load(*arguments)

    monkeypatch.setattr(module, "load_model", counted)
    service = new_embedding_service()

    await asyncio.gather(*(service.load() for _ in range(10)))

    assert loaded == ["loaded"]


async def test_model_that_could_not_be_loaded_is_tried_again(
    new_embedding_service: NewService, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = service_module
    load = module.load_model

    def fail(*_: Any) -> Any:
        monkeypatch.setattr(module, "load_model", load)
        raise OSError("the disk is away")

    monkeypatch.setattr(module, "load_model", fail)
    service = new_embedding_service()
    with pytest.raises(OSError, match="disk"):
        await service.load()

    assert (await service.load()).name == "ScriptedEmbedding:scripted"


async def test_wait_for_the_rate_limit_is_no_failure_of_the_model(
    new_embedding_service: NewService, model: ScriptedEmbedding
) -> None:
    service = new_embedding_service(requests_per_minute=1)
    await service.embed_query("a")

    for query in ("b", "c", "d"):
        with pytest.raises((OverloadedError, OperationTimeoutError)):
            async with deadline("search", SHORT):
                await service.embed_query(query)

    assert model.queries == ["a"]
    assert service.breakers()[0]["failures"] == 0


async def test_close_tells_those_who_wait(new_embedding_service: NewService, model: ScriptedEmbedding) -> None:
    service = new_embedding_service()
    await service.load()
    before = asyncio.all_tasks()
    model.become("hanging")
    asked = [asyncio.create_task(service.embed_query(query)) for query in "abcd"]
    asked.append(asyncio.create_task(service.embed_query("a")))
    await eventually(lambda: model.queries)

    await service.close(SHORT)
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {UnavailableError}
    assert asyncio.all_tasks() == before
    with pytest.raises(UnavailableError):
        await service.embed_query("e")


async def test_close_during_the_load_leaves_nobody_waiting(
    new_embedding_service: NewService, model: ScriptedEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = service_module
    load, begun, goes_on = module.load_model, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        goes_on.wait(20.0)
        return load(*arguments)

    monkeypatch.setattr(module, "load_model", slow)
    before = asyncio.all_tasks()
    service = new_embedding_service()
    asked = asyncio.create_task(service.embed_query("a"))
    await eventually(begun.is_set)

    closing = asyncio.create_task(service.close(10.0))
    await asyncio.sleep(SHORT)
    goes_on.set()
    await closing

    with pytest.raises(UnavailableError):
        await asked
    await eventually(lambda: asyncio.all_tasks() == before)
    assert model.queries == []

"""Chunks for prompts: found, fresh, visible, within threshold and budget, on a real server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge_base.errors import InvalidInputError, UnavailableError
from knowledge_base.keyspace import PartName
from knowledge_base.settings import ChunkingSettings, Limits, RetrievalConfig, RetrievalSettings
from knowledge_base.telemetry.hooks import add_listener, remove_listener
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from knowledge_base import KnowledgeBase
    from knowledge_base.types import ChunkWithContext, RAGOperationMetrics
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control
    from tests.support.embeddings import StubEmbedding
    from tests.support.server import RedisServer

ANY = RetrievalConfig(similarity_threshold=0.0)

FACTS = {
    "car": "The automobile was parked in front of the house overnight.",
    "cat": "A kitten slept on the warm windowsill all afternoon.",
    "moon": "Apollo 11 landed the first humans on the Moon in July 1969.",
    "bread": "Knead the dough for ten minutes and let it rise before baking.",
    "code": "Error KB-4711 is raised when the licence key has expired.",
}

THINGS = ["bridges", "ovens", "kites", "glaciers", "violins", "harbours", "printers", "orchards", "lanterns", "wells"]
ARTICLE = " ".join(
    f"Chapter {number} is all about {thing}. It tells at length how {thing} were made in former times. "
    f"It ends with a picture of {thing}."
    for number, thing in enumerate(THINGS)
)
SMALL = ChunkingSettings(passage_tokens=32, overlap_tokens=8)


@pytest.fixture
async def library(kb: KnowledgeBase) -> KnowledgeBase:
    """The real model, and facts about things that have nothing to do with each other."""
    stored = await kb.store_facts({"content": content, "fact_id": key, "source": key} for key, content in FACTS.items())
    assert stored["succeeded"] == len(FACTS)
    return kb


@pytest.fixture
async def article(open_kb: OpenKnowledgeBase) -> KnowledgeBase:
    """One fact of many passages, and one of a single one."""
    kb = open_kb(chunking=SMALL)
    await kb.store_fact(ARTICLE, fact_id="article", source="A book")
    await kb.store_fact("Violins are also made today.", fact_id="short")
    return kb


async def retrieved(kb: KnowledgeBase, query: str, config: RetrievalConfig = ANY, **scope: Any) -> list[str]:
    """The facts of the chunks that are found, best first."""
    return [chunk["doc_id"] for chunk in await kb.retrieve_chunks_from_text(query, config, **scope)]


async def measured(
    kb: KnowledgeBase, query: str, config: RetrievalConfig = ANY, **scope: Any
) -> tuple[list[ChunkWithContext], RAGOperationMetrics]:
    told: list[RAGOperationMetrics] = []
    chunks = await kb.retrieve_chunks_from_text(query, config, on_metrics=told.append, **scope)
    assert len(told) == 1
    return chunks, told[0]


async def test_chunk_carries_everything(library: KnowledgeBase) -> None:
    chunk = (await library.retrieve_chunks_from_text("Where was the automobile?"))[0]

    name = PartName.parse(chunk["id"])
    assert (name.fact_id, name.position) == ("car", 0)
    assert (chunk["doc_id"], chunk["chunk_index"], chunk["content"]) == ("car", 0, FACTS["car"])
    assert (chunk["section_path"], chunk["section_title"]) == ([], None)
    assert (chunk["page_start"], chunk["page_end"]) == (None, None)
    assert 0.25 <= chunk["similarity"] <= 1.0
    assert chunk["tokens"] == 11


@pytest.mark.parametrize(
    ("query", "meant"), [("a young cat", "cat"), ("lunar landing of astronauts", "moon"), ("KB-4711", "code")]
)
async def test_what_meaning_or_words_find_is_found(library: KnowledgeBase, query: str, meant: str) -> None:
    assert (await retrieved(library, query))[0] == meant


async def test_similarity_is_the_cosine_of_the_vector_search(library: KnowledgeBase) -> None:
    query = "Was the kitten asleep in the house?"
    cosines = {hit["fact_id"]: hit["scores"]["vector"] for hit in (await library.search(query, mode="vector"))["hits"]}

    chunks = await library.retrieve_chunks_from_text(query, ANY)

    assert len(chunks) == len(FACTS)
    for chunk in chunks:
        assert chunk["similarity"] == pytest.approx(max(0.0, cosines[chunk["doc_id"]]), abs=1e-5)


async def test_similarity_of_what_only_words_found_is_the_same_cosine(
    open_kb: OpenKnowledgeBase, local_embedding: BaseEmbedding
) -> None:
    kb = open_kb(local_embedding, retrieval=RetrievalSettings(candidates=2))
    cats = ["A young feline naps on the sofa.", "Tomcats purr when they are content.", "Felines hunt mice at night."]
    await kb.store_facts([{"content": content} for content in cats])
    await kb.store_fact(FACTS["code"], fact_id="code")
    query = "kittens and cats KB-4711"
    nearest = (await kb.search(query, 10, mode="vector"))["hits"]
    cosines = {hit["fact_id"]: hit["scores"]["vector"] for hit in nearest}
    assert "code" not in list(cosines)[:2]

    (chunk,) = await kb.retrieve_chunks_from_text(query, RetrievalConfig(similarity_threshold=0, max_chunks=1))

    assert chunk["doc_id"] == "code"
    assert chunk["similarity"] == pytest.approx(cosines["code"], abs=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.2, 0.4, 0.9, 1.0])
async def test_nothing_below_the_threshold_is_returned(library: KnowledgeBase, threshold: float) -> None:
    query = "Was the automobile parked while the kitten slept?"
    every, metrics = await measured(library, query)

    chunks, above = await measured(library, query, RetrievalConfig(similarity_threshold=threshold))

    expected = [chunk["id"] for chunk in every if chunk["similarity"] >= threshold]
    assert [chunk["id"] for chunk in chunks] == expected
    assert above["above_threshold"] == len(expected)
    assert above["candidates"] == metrics["candidates"] == len(FACTS)


@pytest.mark.parametrize("most", [1, 2, 4])
async def test_no_more_chunks_than_wanted(library: KnowledgeBase, most: int) -> None:
    config = RetrievalConfig(similarity_threshold=0.0, max_chunks=most)

    assert len(await library.retrieve_chunks_from_text("the automobile, the kitten and the Moon", config)) == most


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.builds(
        RetrievalConfig,
        similarity_threshold=st.floats(0, 1),
        max_chunks=st.integers(1, 20),
        token_budget=st.integers(1, 400),
        merge_neighbours=st.booleans(),
    ),
    things=st.lists(st.sampled_from(THINGS), min_size=1, max_size=4),
)
async def test_threshold_and_budget_hold_whatever_is_asked(
    article: KnowledgeBase, config: RetrievalConfig, things: list[str]
) -> None:
    query = f"pictures of {' and '.join(things)}"

    chunks, metrics = await measured(article, query, config)

    counter = (await article._services.start()).tokens
    assert [chunk["tokens"] for chunk in chunks] == [await counter.count(chunk["content"]) for chunk in chunks]
    assert sum(chunk["tokens"] for chunk in chunks) == metrics["tokens"] <= config.token_budget
    assert len(chunks) == metrics["returned"] <= config.max_chunks
    assert all(chunk["similarity"] >= config.similarity_threshold for chunk in chunks)
    assert sum(metrics["similarity_histogram"]) == metrics["candidates"]
    texts = [ARTICLE, "Violins are also made today."]
    assert all(any(chunk["content"] in text for text in texts) for chunk in chunks)


async def test_budget_is_filled_with_what_fits(article: KnowledgeBase) -> None:
    config = RetrievalConfig(similarity_threshold=0, token_budget=10, merge_neighbours=False)

    chunks, metrics = await measured(article, "how are violins made", config)

    assert [chunk["doc_id"] for chunk in chunks] == ["short"]
    assert metrics["tokens"] <= 10


async def test_neighbours_are_merged_in_without_their_overlap(article: KnowledgeBase) -> None:
    config = RetrievalConfig(similarity_threshold=0, max_chunks=1)

    (chunk,) = await article.retrieve_chunks_from_text("a picture of glaciers", config)
    (alone,) = await article.retrieve_chunks_from_text(
        "a picture of glaciers", config.model_copy(update={"merge_neighbours": False})
    )

    assert alone["content"] in chunk["content"] in ARTICLE
    assert len(chunk["content"]) > len(alone["content"])
    assert chunk["chunk_index"] == alone["chunk_index"] - 1
    assert PartName.parse(chunk["id"]).position == chunk["chunk_index"]
    assert chunk["similarity"] == alone["similarity"]


async def test_chosen_passages_side_by_side_become_one_chunk(article: KnowledgeBase) -> None:
    config = RetrievalConfig(similarity_threshold=0, max_chunks=100, token_budget=1_000_000)

    chunks = await article.retrieve_chunks_from_text("kites and everything else", config)

    contents = {chunk["doc_id"]: chunk["content"] for chunk in chunks}
    assert contents == {"article": ARTICLE, "short": "Violins are also made today."}
    assert len(chunks) == 2


async def test_identical_contents_are_returned_once(stub_kb: KnowledgeBase) -> None:
    for principals in ([], ["user:ann"], ["group:ops"]):
        await stub_kb.store_fact("penguins swim", principals=principals)
    await stub_kb.store_fact("penguins dive")

    chunks = await stub_kb.retrieve_chunks_from_text("penguins", ANY, principals=["user:ann", "group:ops"])

    assert sorted(chunk["content"] for chunk in chunks) == ["penguins dive", "penguins swim"]


async def test_only_facts_that_the_caller_may_see_are_found(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim in secret", fact_id="secret", principals=["group:ops"])
    await stub_kb.store_fact("penguins swim in the open", fact_id="open")

    assert await retrieved(stub_kb, "penguins swim") == ["open"]
    assert await retrieved(stub_kb, "penguins swim", principals=["user:ann"]) == ["open"]
    assert sorted(await retrieved(stub_kb, "penguins swim", principals=["group:ops"])) == ["open", "secret"]


async def test_other_namespaces_are_not_searched(stub_kb: KnowledgeBase, namespace: str) -> None:
    await stub_kb.store_fact("penguins swim", namespace=f"{namespace}-other")

    assert await retrieved(stub_kb, "penguins swim") == []
    assert len(await retrieved(stub_kb, "penguins swim", namespace=f"{namespace}-other")) == 1


async def test_filters_are_applied(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="a", tags=["sea"])
    await stub_kb.store_fact("penguins walk", fact_id="b", tags=["land"])

    assert await retrieved(stub_kb, "penguins", filters={"tags": "land"}) == ["b"]


async def test_changed_fact_is_found_as_it_is_now(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    await stub_kb.update_fact("p", content="penguins walk")
    await stub_kb.store_fact("penguins sleep", fact_id="gone")
    await stub_kb.delete_fact("gone")

    chunks = await stub_kb.retrieve_chunks_from_text("penguins", ANY)

    assert [chunk["content"] for chunk in chunks] == ["penguins walk"]


async def test_passages_of_an_old_revision_are_dropped(
    stub_kb: KnowledgeBase, control: Control, namespace: str
) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    await stub_kb.store_fact("penguins dive", fact_id="q")
    # As if the fact had been changed by somebody after the passages were found.
    control.run("HSET", f"kb:{{{namespace}}}:fact:p", "revision", "2-somethingelse-1")

    chunks, metrics = await measured(stub_kb, "penguins")

    assert [chunk["doc_id"] for chunk in chunks] == ["q"]
    assert metrics["candidates"] == 2


async def test_expired_fact_is_not_found(stub_kb: KnowledgeBase, control: Control, namespace: str) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    control.run("HSET", f"kb:{{{namespace}}}:fact:p", "expires_at", "1")

    assert await retrieved(stub_kb, "penguins") == []


async def test_nothing_found_is_an_empty_list_with_metrics(stub_kb: KnowledgeBase) -> None:
    nothing, metrics = await measured(stub_kb, "penguins")
    await stub_kb.store_fact("walruses dive")
    below, above = await measured(stub_kb, "penguins", RetrievalConfig(similarity_threshold=1.0))

    assert nothing == below == []
    assert (metrics["candidates"], metrics["similarity_max"]) == (0, None)
    assert (above["candidates"], above["above_threshold"], above["returned"]) == (1, 0, 0)


async def test_metrics_tell_what_was_done(library: KnowledgeBase) -> None:
    chunks, metrics = await measured(library, "Was the automobile parked while the kitten slept?")

    similarities = [chunk["similarity"] for chunk in chunks]
    assert metrics["candidates"] == metrics["returned"] == len(chunks) == len(FACTS)
    assert metrics["tokens"] == sum(chunk["tokens"] for chunk in chunks)
    assert (metrics["similarity_min"], metrics["similarity_max"]) == (min(similarities), max(similarities))
    assert metrics["similarity_median"] == sorted(similarities)[2]
    assert metrics["similarity_avg"] == pytest.approx(sum(similarities) / len(similarities))
    assert metrics["degraded"] == []
    assert list(metrics["stages"]) == ["embedding", "waiting", "searching", "ranking", "choosing"]
    assert 0 < sum(metrics["stages"].values()) <= metrics["took_ms"]


async def test_listeners_get_the_metrics_and_no_content(library: KnowledgeBase) -> None:
    events: list[tuple[str, Any]] = []

    def listen(event: str, values: Any) -> None:
        events.append((event, values))

    def fail(*_: Any) -> None:
        raise RuntimeError("a listener of somebody's")

    add_listener(fail)
    add_listener(listen)
    try:
        _, metrics = await measured(library, "Was the automobile parked?")
    finally:
        remove_listener(fail)
        remove_listener(listen)

    assert events == [("retrieval", metrics)]
    assert "automobile" not in repr(events)


@pytest.mark.parametrize("mood", ["failing", "not a number", "wrong dimension"])
async def test_embedder_down_leaves_the_share_of_the_words(
    stub_kb: KnowledgeBase, stub_embedding: StubEmbedding, mood: Any
) -> None:
    await stub_kb.store_facts(
        [
            {"content": "penguins swim in cold water", "fact_id": "both"},
            {"content": "penguins walk", "fact_id": "one"},
            {"content": "walruses dive", "fact_id": "none"},
        ]
    )
    stub_embedding.become(mood)

    chunks, metrics = await measured(stub_kb, "swimming penguins", RetrievalConfig())

    assert [(chunk["doc_id"], chunk["similarity"]) for chunk in chunks] == [("both", 1.0), ("one", 0.5)]
    assert metrics["degraded"] == ["vector"]
    assert (metrics["similarity_max"], metrics["similarity_min"]) == (1.0, 0.5)


async def test_embedder_that_hangs_leaves_time_for_words(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="p")
    await stub_kb.retrieve_chunks_from_text("warm up", ANY)
    stub_embedding.become("hanging")
    began = time.monotonic()

    chunks, metrics = await measured(stub_kb, "penguins", timeout=2.0)

    assert [chunk["doc_id"] for chunk in chunks] == ["p"]
    assert metrics["degraded"] == ["vector"]
    assert time.monotonic() - began < 2.5


async def test_fact_that_waits_for_its_vector_has_the_share_of_the_words(
    open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding
) -> None:
    kb = open_kb()
    await kb.store_fact("walruses dive", fact_id="w")
    await kb.search("penguins dance", mode="vector")
    stub_embedding.become("failing")
    assert not (await kb.store_fact("penguins swim", fact_id="p"))["indexed"]

    # The query's vector is known still.
    chunks, metrics = await measured(kb, "penguins dance")

    assert metrics["degraded"] == []
    assert {chunk["doc_id"]: chunk["similarity"] for chunk in chunks}["p"] == 0.5
    assert metrics["candidates"] == 2


async def test_unreachable_server_is_an_error(
    new_server: Callable[..., RedisServer], open_kb: OpenKnowledgeBase
) -> None:
    server = new_server().start()
    kb = open_kb(redis_url=server.url)
    await kb.store_fact("penguins swim")
    server.kill()

    with pytest.raises(UnavailableError):
        await kb.retrieve_chunks_from_text("penguins", timeout=3.0)


async def test_metrics_function_that_fails_is_logged_and_takes_no_result_away(
    library: KnowledgeBase, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("mine")

    chunks = await library.retrieve_chunks_from_text("the house", on_metrics=fail)

    assert chunks
    assert "a listener failed" in caplog.text
    assert "mine" not in caplog.text


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("query", {"query": " "}),
        ("query", {"query": 3}),
        ("query", {"query": "x" * 10_001}),
        ("config", {"config": {"max_chunks": 3}}),
        ("on_metrics", {"on_metrics": 3}),
        ("on_metrics", {"on_metrics": asyncio.sleep}),
        ("namespace", {"namespace": "a b"}),
        ("principals", {"principals": "ann"}),
        ("filters", {"filters": {"nothing": 1}}),
        ("timeout", {"timeout": 0}),
    ],
)
async def test_bad_argument_is_refused_by_name(
    open_kb: OpenKnowledgeBase, field: str, arguments: dict[str, Any]
) -> None:
    query = arguments.pop("query", "penguins")

    with pytest.raises(InvalidInputError) as refused:
        await open_kb().retrieve_chunks_from_text(query, **arguments)

    assert refused.value.field.startswith(field)


async def test_many_at_once_share_the_places_of_searches(open_kb: OpenKnowledgeBase) -> None:
    kb = open_kb(limits=Limits(concurrent_searches=2))
    await kb.store_fact("penguins swim")
    services = await kb._services.start()
    taken: list[int] = []

    async def watch() -> None:
        while True:
            taken.append(services.searches.in_use)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    found = await asyncio.gather(*(kb.retrieve_chunks_from_text(f"penguins {number}", ANY) for number in range(20)))
    watching.cancel()

    assert all(len(chunks) == 1 for chunks in found)
    assert max(taken) == 2
    assert services.searches.in_use == 0


async def test_cancelled_call_gives_its_place_back(open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding) -> None:
    kb = open_kb(limits=Limits(concurrent_searches=1))
    await kb.store_fact("penguins swim")
    services = await kb._services.start()
    calls = [asyncio.create_task(kb.retrieve_chunks_from_text(f"penguins {number}", ANY)) for number in range(10)]
    await eventually(lambda: services.searches.in_use)

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    assert services.searches.in_use == 0
    assert len(await kb.retrieve_chunks_from_text("penguins", ANY)) == 1

"""Passages of one document that say the same: a prompt gets them once."""

from __future__ import annotations

from knowledge_base import RetrievalConfig
from knowledge_base.settings import ChunkingSettings
from tests.conftest import OpenKnowledgeBase

RULE = (
    "Guests may check in from three in the afternoon until ten in the evening at the desk beside the main entrance, "
    "where a night porter keeps the keys of everybody who has told the hotel before noon that a later arrival is "
    "likely, for instance because of a {} train, and who has left a telephone number under which the porter can "
    "reach them {} times before the room is given away."
)
BETWEEN = " ".join(
    f"Chapter {number} is about glaciers, violins and harbours of province {number}." for number in range(9)
)
ALL = RetrievalConfig(similarity_threshold=0.0, max_chunks=20, merge_neighbours=False)
QUESTION = "When may guests check in, and where is the porter?"
CUT = ChunkingSettings(passage_tokens=90, overlap_tokens=0)


async def rules(open_kb: OpenKnowledgeBase, *versions: tuple[str, int]) -> tuple[int, int]:
    """Stores one document with these versions of a rule; in how many chunks, and how often in a context, it stands."""
    kb = open_kb(chunking=CUT)
    await kb.add_document(f"\n\n{BETWEEN}\n\n".join(RULE.format(*version) for version in versions), document_id="house")
    chunks = await kb.retrieve_chunks_from_text(QUESTION, ALL)
    context = await kb.build_context(QUESTION, token_budget=4_000, config=ALL)
    return sum("night porter" in chunk["content"] for chunk in chunks), context["text"].count("night porter")


async def test_nearly_identical_passages_of_a_document_are_given_once(open_kb: OpenKnowledgeBase) -> None:
    assert await rules(open_kb, ("delayed", 3), ("cancelled", 3), ("missed", 3)) == (1, 1)


async def test_passages_with_other_numbers_are_all_given(open_kb: OpenKnowledgeBase) -> None:
    assert await rules(open_kb, ("delayed", 3), ("delayed", 5)) == (2, 2)


async def test_nearly_identical_passages_of_two_documents_are_both_given(open_kb: OpenKnowledgeBase) -> None:
    kb = open_kb(chunking=CUT)
    for name, train in (("one", "delayed"), ("other", "cancelled")):
        await kb.add_document(RULE.format(train, 3), document_id=name)

    chunks = await kb.retrieve_chunks_from_text(QUESTION, ALL)

    assert {chunk["doc_id"] for chunk in chunks} == {"one", "other"}

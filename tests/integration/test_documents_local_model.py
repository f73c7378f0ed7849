"""Documents with the real local model: found by meaning, in the right section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from knowledge_base.settings import RetrievalConfig

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

HANDBOOK = """# Handbook

## Vacation

Employees may take thirty days off each year. Ask your manager two weeks ahead.

## Expenses

Travel costs are paid back when the receipts are handed in within a month.

## Equipment

### Laptops

Every new colleague gets a portable computer on the first day. It is replaced after four years.

### Phones

Telephones are given to those who travel.
"""


async def test_document_is_found_by_meaning(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text(HANDBOOK)
    await kb.store_fact("The canteen opens at noon.")

    result = await kb.ingest_path(tmp_path)
    (chunk, *_) = await kb.retrieve_chunks_from_text("When is my notebook exchanged for a new one?")

    assert (result["succeeded"], result["embedded"]) == (1, result["passages"])
    assert "replaced after four years" in chunk["content"]
    assert chunk["section_path"][:2] == ["Handbook", "Equipment"]


async def test_passages_fit_into_the_model(kb: KnowledgeBase) -> None:
    text = "# Long\n\n" + "\n\n".join(f"Paragraph {number} " + "internationalisation " * 40 for number in range(20))

    added = await kb.add_document(text, document_id="d")
    model = await (await kb._services.start()).embedding.load()
    config = RetrievalConfig(max_chunks=20, merge_neighbours=False, similarity_threshold=0.0)
    chunks = await kb.retrieve_chunks_from_text("internationalisation", config)

    assert added["passages"] > 5
    assert model.tokenizer is not None
    assert model.tokens is not None
    assert len(chunks) > 5
    assert all(len(model.tokenizer(chunk["content"])) <= model.tokens for chunk in chunks)

"""Files for imports, and a base with everything in it that an export must keep."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase

UNICODE = "größer \U0001f427\U0001f9ca, 日本語, \u202eright to left, e\u0301"
LINES = '=cmd("x")\n"quoted", comma\r\nnext\n\n<!-- kb end -->\n\\<!-- kb {"kind":"fact"} -->\n-->'


async def fill(kb: KnowledgeBase) -> dict[str, Any]:
    """Stores facts of every kind, and a document; returns what stands of them afterwards."""
    await kb.store_fact(UNICODE, {"größe": {"deep": [1, -0.0, 1e300, 2**62, None, True]}}, fact_id="unicode")
    await kb.store_fact(LINES, tags=["-minus", "@at"], source="+plus", fact_id="-lines")
    await kb.store_fact("only for ann", principals=["user:ann", "team:b"], fact_id="secret")
    await kb.store_fact("gone one day", expires_in=86_400, fact_id="expiring")
    await kb.store_fact("version one", {"v": 1}, tags=["old"], fact_id="changed")
    await kb.update_fact("changed", content="version two", tags=["new"], source="someone")
    await kb.update_fact("changed", metadata={"v": [{"3": "three"}]})
    long = " ".join(f"Sentence {number} of a long fact tells of penguins." for number in range(600))
    await kb.store_fact(long, fact_id="long")
    await kb.add_document("# Title\n\nSome words.\n\n## Part\n\nOther <!-- kb end --> words.", document_id="d1")
    await eventually(lambda: _is_indexed(kb))
    return await everything(kb)


async def _is_indexed(kb: KnowledgeBase) -> bool:
    return (await kb.get_stats())["pending"] == 0


async def everything(kb: KnowledgeBase) -> dict[str, Any]:
    """Returns all facts with their histories, and all documents, as callers get them."""
    who = ["user:ann"]
    facts = [fact async for fact in kb.iter_facts(principals=who)]
    histories = {fact["id"]: await kb.get_fact_history(fact["id"], principals=who) for fact in facts}
    document = await kb.get_document("d1")
    return {"facts": facts, "histories": histories, "document": document}


def write_lines(path: Path, *entries: Any) -> Path:
    """Writes plain JSON Lines; what is text already goes as it is."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    return path


def plain(path: Path) -> bytes:
    """Returns what a file holds, unpacked."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return bytes(zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(data))
    return data

"""LlamaIndex's node postprocessors as rerankers. Takes seconds to import: only worker threads do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from knowledge_base.connection.workload import call_outside
from knowledge_base.retrieval.reranking.judged import Judged, Passage, calibrated


class NonsenseError(TypeError):
    """What a postprocessor returned is no list of scored nodes."""


def judge(postprocessor: BaseNodePostprocessor, query: str, passages: Sequence[Passage]) -> list[Judged]:
    """Lets a postprocessor order passages, or drop some.

    It works on copies: whatever it does to a node, the hit keeps its content and metadata.

    Args:
        postprocessor: The postprocessor.
        query: What was asked.
        passages: What was found.

    Returns:
        What it kept, in its order; nodes of its own making are left out, repeated ones but for the first.

    Raises:
        NonsenseError: It returned something else than a list of scored nodes.
        Exception: Whatever it raised.
    """
    nodes = [NodeWithScore(node=_node(passage), score=passage.score) for passage in passages]
    places = {passage.node_id: place for place, passage in enumerate(passages)}
    run: Callable[..., Any] = postprocessor.postprocess_nodes
    kept: dict[int, float | None] = {}
    returned = call_outside(lambda: run(nodes, query_str=query))
    if not isinstance(returned, list | tuple):
        raise NonsenseError(f"a postprocessor returned {type(returned).__name__} instead of a list")
    for one in returned:
        if not isinstance(one, NodeWithScore):
            raise NonsenseError(f"a postprocessor returned {type(one).__name__} among the nodes")
        place = places.get(one.node.node_id)
        if place is not None:
            kept.setdefault(place, _checked(one.score))
    scored = {place: raw for place, raw in kept.items() if raw is not None}
    scores = dict(zip(scored, calibrated(list(scored.values())), strict=True))
    return [Judged(place, raw, scores.get(place)) for place, raw in kept.items()]


def _checked(score: object) -> float | None:
    if score is None:
        return None
    try:
        number = float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise NonsenseError(f"a postprocessor gave a score of type {type(score).__name__}") from None
    if not math.isfinite(number):
        raise NonsenseError("a postprocessor gave a score that is no finite number")
    return number


def _node(passage: Passage) -> TextNode:
    metadata = copy.deepcopy(dict(passage.metadata))
    keys = list(metadata)
    node = TextNode(
        id_=passage.node_id,
        text=passage.text,
        metadata=metadata,
        # What is judged is what was searched: the text alone.
        excluded_embed_metadata_keys=keys,
        excluded_llm_metadata_keys=keys,
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=passage.owner)
    return node

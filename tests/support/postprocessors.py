"""Node postprocessors of the tests' own, as LlamaIndex wants them, that reorder, drop, hang, fail and lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

HANGS_AT_MOST = 20.0


class Rule(BaseNodePostprocessor):
    """Does what a function does, and remembers what it was given."""

    _rule: Callable[[list[NodeWithScore]], Any] = PrivateAttr()
    _seen: list[NodeWithScore] = PrivateAttr(default_factory=list)
    _queries: list[str] = PrivateAttr(default_factory=list)
    _threads: list[str] = PrivateAttr(default_factory=list)

    def __init__(self, rule: Callable[[list[NodeWithScore]], Any]) -> None:
        super().__init__()
        self._rule = rule

    @property
    def seen(self) -> list[NodeWithScore]:
        """Every node that it was given."""
        return self._seen

    @property
    def queries(self) -> list[str]:
        """Every query that it was given; one for each time that it was called."""
        return self._queries

    @property
    def threads(self) -> list[str]:
        """The thread of each call."""
        return self._threads

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self._seen += nodes
        self._queries.append(query_bundle.query_str if query_bundle else "")
        self._threads.append(threading.current_thread().name)
        returned: list[NodeWithScore] = self._rule(nodes)
        return returned


class Hanging(BaseNodePostprocessor):
    """Does not come back before it is released."""

    _released: threading.Event = PrivateAttr(default_factory=threading.Event)
    _calls: int = PrivateAttr(default=0)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return self._calls

    def release(self) -> None:
        """Lets it come back, now and from now on."""
        self._released.set()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self._calls += 1
        if not self._released.wait(HANGS_AT_MOST):
            raise AssertionError("nobody released the postprocessor")
        return nodes[::-1]


def scored(scores: Sequence[float]) -> Rule:
    """Gives the nodes these scores, one after the other, and puts the best first."""

    def rule(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        for node, score in zip(nodes, scores, strict=False):
            node.score = score
        return sorted(nodes, key=lambda node: -(node.score or 0.0))

    return Rule(rule)


def reversing() -> Rule:
    """Puts the last first, with scores from 1 downwards."""

    def rule(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        return [NodeWithScore(node=node.node, score=1.0 / (place + 1)) for place, node in enumerate(nodes[::-1])]

    return Rule(rule)


def foreign_node() -> NodeWithScore:
    """A node that nobody found."""
    return NodeWithScore(node=TextNode(text="planted"), score=1.0)

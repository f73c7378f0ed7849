"""What of a fact stands in the index: its passages and sections, and the labels that they are filtered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.errors import InvalidInputError
from knowledge_base.facts.draft import content_digest
from knowledge_base.index.filters import metadata_labels
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.passages import PassageSplitter
from knowledge_base.index.schema import SEPARATOR
from knowledge_base.keyspace import OPEN

MOST_LABEL_CHARS = 8_000_000
"""Characters of labels that one fact may have over all its parts; writing them takes the server some 0.3 s."""

INLINE_VALUES = 500
"""Metadata with up to so many values is handled on the event loop; more would stall it."""

INLINE_CHARACTERS = 100_000
"""Content up to this length gets its digest on the event loop; more would stall it."""


class FactParts(NamedTuple):
    """The parts of one content and their labels; without passages, the content stays as it is stored."""

    passages: Sequence[str]
    sections: Sequence[str]
    labels: Mapping[str, str]
    digest: str
    """Tells the content from others; see ``content_digest``."""


def labels(
    metadata: Mapping[str, Any], tags: Sequence[str], source: str | None, principals: Sequence[str]
) -> dict[str, str]:
    """Returns the fields of a part that are filtered on.

    Args:
        metadata: The fact's metadata.
        tags: Its tags.
        source: Its source.
        principals: Who may see it; nobody in particular means everybody.
    """
    return {
        "principals": SEPARATOR.join(principals or [OPEN]),
        "tags": SEPARATOR.join(tags),
        "source": source or "",
        "meta": SEPARATOR.join(metadata_labels(metadata)),
    }


class Described(NamedTuple):
    """What of a fact its parts are made of."""

    content: str
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    source: str | None
    principals: Sequence[str]


class PartMaker:
    """Makes the parts of facts.

    Attributes:
        limit: Seconds that making the parts of one fact may take.

    Args:
        splitter: Cuts contents into passages.
        embedding: Says how long passages may be.
        threads: Where what takes long is done.
        languages: Knows the languages of namespaces.
        limit: Seconds that making the parts of one fact may take.
    """

    def __init__(
        self,
        splitter: PassageSplitter,
        embedding: EmbeddingService,
        threads: WorkloadThreads,
        languages: NamespaceLanguages,
        limit: float,
    ) -> None:
        self._splitter = splitter
        self._embedding = embedding
        self._threads = threads
        self._languages = languages
        self.limit = limit

    async def make(
        self,
        namespace: str,
        content: str,
        metadata: Mapping[str, Any],
        tags: Sequence[str],
        source: str | None,
        principals: Sequence[str],
        *,
        cut: bool = True,
    ) -> FactParts:
        """Returns the parts of a fact.

        Args:
            namespace: Where it goes.
            content: The content.
            metadata: The metadata.
            tags: The tags.
            source: The source, or None.
            principals: Who may see it.
            cut: Whether to cut the content; without, the parts are labels and digest only.

        Raises:
            InvalidInputError: There are too many labels for so long a content.
            OperationTimeoutError: It took too long.
            OverloadedError: Too many long contents wait already.
        """
        passages, sections = await self._split(namespace, content) if cut else ([], [])
        described = (content, metadata, tags, source, principals)
        if len(content) <= INLINE_CHARACTERS and has_few_values(metadata):
            own_labels, digest = _described(*described)
        else:
            own_labels, digest = await self._threads.to_thread(
                _described, *described, step="labelling metadata", limit=self.limit
            )
        return _checked(FactParts(passages, sections, own_labels, digest))

    async def make_all(
        self, namespace: str, described: Sequence[Described], limit: float
    ) -> list[FactParts | InvalidInputError]:
        """Returns the parts of many facts, made in one go in a worker thread.

        Args:
            namespace: Where they go.
            described: The facts.
            limit: Seconds that all of them may take.

        Returns:
            For each its parts, or why it is refused.

        Raises:
            OperationTimeoutError: It took too long.
            OverloadedError: Too much waits for the threads already.
        """
        model = await self._embedding.load()
        of_namespace = await self._languages.likely(namespace)

        def make(fact: Described, likely: str) -> FactParts | InvalidInputError:
            cut = self._splitter.split_here(
                fact.content, tokenizer=model.tokenizer, model_tokens=model.tokens, likely=likely
            )
            try:
                return _checked(FactParts(cut.passages, cut.sections, *_described(*fact)))
            except InvalidInputError as error:
                return error

        def make_all() -> list[FactParts | InvalidInputError]:
            likely = self._splitter.likely([fact.content for fact in described], of_namespace)
            return [make(fact, likely) for fact in giving_way(described)]

        made = await self._threads.to_thread(make_all, step="cutting contents into passages", limit=limit)
        sections = (section for parts in made if isinstance(parts, FactParts) for section in parts.sections)
        self._languages.note(namespace, sections)
        return made

    async def _split(self, namespace: str, content: str) -> tuple[list[str], list[str]]:
        model = await self._embedding.load()
        cut = await self._splitter.split(
            content,
            tokenizer=model.tokenizer,
            model_tokens=model.tokens,
            limit=self.limit,
            likely=await self._languages.likely(namespace),
        )
        self._languages.note(namespace, cut.sections)
        return cut.passages, cut.sections


def _checked(parts: FactParts) -> FactParts:
    # They stand with each part: the server would be busy with writing them for too long.
    weight = sum(map(len, parts.labels.values())) * (len(parts.passages) + len(parts.sections))
    if weight > MOST_LABEL_CHARS:
        raise InvalidInputError(
            "metadata",
            "has too many values to filter on for so long a content (tags and principals count); shorten either",
            limit=MOST_LABEL_CHARS,
        )
    return parts


def _described(
    content: str, metadata: Mapping[str, Any], tags: Sequence[str], source: str | None, principals: Sequence[str]
) -> tuple[dict[str, str], str]:
    return labels(metadata, tags, source, principals), content_digest(content, principals)


def has_few_values(metadata: Mapping[str, Any]) -> bool:
    """Tells whether metadata may be handled on the event loop.

    Args:
        metadata: JSON of any size; no more of it is looked at than has to be.
    """
    waiting: list[Any] = [metadata]
    seen = 0
    while waiting and seen <= INLINE_VALUES:
        value = waiting.pop()
        if isinstance(value, Mapping):
            seen += len(value)
            waiting += value.values() if seen <= INLINE_VALUES else ()
        elif isinstance(value, list | tuple):
            seen += len(value)
            waiting += value if seen <= INLINE_VALUES else ()
    return seen <= INLINE_VALUES

"""Between what stores documents and the embedding model: full batches, whoever they are from."""

from __future__ import annotations

import asyncio
from functools import partial

from knowledge_base.documents.writer import DocumentWriter, Written
from knowledge_base.index.indexer import PASSAGES_AT_ONCE, Indexer

TAKERS = 2
"""Batches under way: while one is written, the other is embedded."""

MOST_WAITING = 64
"""Documents that wait at most; then those who store have to."""


class IndexQueue:
    """Makes queues.

    Args:
        writer: Gives passages their vectors.
        indexer: Does it in the live generation.
    """

    def __init__(self, writer: DocumentWriter, indexer: Indexer) -> None:
        self._writer = writer
        self._indexer = indexer

    def opened(self, namespace: str, tasks: asyncio.TaskGroup) -> OpenQueue:
        """Returns a queue of its own.

        Args:
            namespace: Where its documents are.
            tasks: What its takers belong to.
        """
        return OpenQueue(namespace, self._writer, self._indexer, tasks)


class OpenQueue:
    """A queue of documents that wait for their vectors.

    Args:
        namespace: Where they are.
        writer: Gives passages their vectors.
        indexer: Does it in the live generation.
        tasks: What the takers belong to.
    """

    def __init__(self, namespace: str, writer: DocumentWriter, indexer: Indexer, tasks: asyncio.TaskGroup) -> None:
        self._namespace = namespace
        self._writer = writer
        self._indexer = indexer
        self._waiting: asyncio.Queue[Written | None] = asyncio.Queue(MOST_WAITING)
        self._lock = asyncio.Lock()
        self._embedded = 0
        self._takers = [tasks.create_task(self._take(), name="kb-ingest-index") for _ in range(TAKERS)]

    async def put(self, written: Written) -> None:
        """Adds a document.

        Args:
            written: The document; its missing vectors are made.
        """
        await self._waiting.put(written)

    async def closed(self) -> int:
        """Waits until everything that was added is done.

        Returns:
            How many passages got their vectors.
        """
        for _ in self._takers:
            await self._waiting.put(None)
        await asyncio.wait(self._takers)
        return self._embedded

    async def _take(self) -> None:
        while batch := await self._batch():
            indexed = await self._indexer.in_generation(self._namespace, partial(self._writer.index, written=batch))
            self._embedded += sum(
                one.without_vector for one, is_indexed in zip(batch, indexed, strict=True) if is_indexed
            )

    async def _batch(self) -> list[Written]:
        batch: list[Written] = []
        passages = 0
        # One at a time: two takers would share out what makes one full batch.
        async with self._lock:
            while passages < PASSAGES_AT_ONCE:
                written = await self._waiting.get()
                if written is None:
                    # For the next one who asks.
                    if batch:
                        self._waiting.put_nowait(None)
                    break
                batch.append(written)
                passages += written.without_vector
        return batch

"""Which languages the sections of each namespace are in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context

from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.scripts import LuaScript
from knowledge_base.index.language_guess import ENGLISH
from knowledge_base.index.polyglot import MARK, Polyglot, language_of
from knowledge_base.index.schema import STEM_FIELD, Generation
from knowledge_base.keyspace import Keyspace

FRESH_FOR = 2.0
"""Seconds that a process trusts what it read: by then it searches in a language that another one wrote first."""

NOTED_FOR = 60.0
"""Seconds for which a language counts as there that this process is about to write."""


class NamespaceLanguages:
    """Knows in which languages a query is to be stemmed, and which one to take for a text that shows none.

    The scripts that write and remove sections count them by language, in a hash of the namespace. A rebuild counts
    anew, should something else have written to them.

    Args:
        manager: The connections.
        polyglot: Stems the sections.
        clock: Monotonic seconds; tests bring their own.
    """

    def __init__(
        self, manager: AsyncRedisManager, polyglot: Polyglot, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._manager = manager
        self._told = polyglot.told
        self._clock = clock
        self._known: dict[str, tuple[float, Mapping[str, int]]] = {}
        self._reading: dict[str, asyncio.Task[Mapping[str, int]]] = {}
        self._noted: dict[str, dict[str, float]] = {}
        self._correct = LuaScript("knowledge_base.index", "correct_languages")

    async def of(self, namespace: str) -> tuple[str, ...]:
        """Returns the languages of a namespace's sections, the most frequent one first; English where there are none.

        Args:
            namespace: The namespace.

        Raises:
            UnavailableError: Redis could not be reached.
        """
        counts = dict(await self._counts(namespace)) or {ENGLISH: 0}
        noted = self._noted.get(namespace)
        if noted:
            self._noted[namespace] = noted = self._recent(noted)
            counts = dict.fromkeys(noted, 0) | counts
        # English is there as long as nothing is; names decide between equals, so that all processes agree.
        return tuple(sorted(counts, key=lambda language: (-counts[language], language == ENGLISH, language)))

    async def likely(self, namespace: str) -> str:
        """Returns the language to take for a text of a namespace that does not show its own.

        Args:
            namespace: The namespace.

        Raises:
            UnavailableError: Redis could not be reached.
        """
        return self._told or (await self.of(namespace))[0]

    def note(self, namespace: str, sections: Iterable[str]) -> None:
        """Notes that sections are about to be written, so that this process searches in their languages at once.

        Args:
            namespace: Where to.
            sections: What ``Polyglot.section`` gave.
        """
        now = self._clock()
        noted = self._noted.setdefault(namespace, {})
        noted.update(dict.fromkeys(map(language_of, sections), now))

    async def recount(self, generation: Generation) -> None:
        """Counts the sections of each language anew, and forgets those that have none any more.

        Args:
            generation: The live generation, whose indices are filled.
        """
        namespace = generation.namespace
        recorded = await self._read(namespace)
        counted = {
            language: await self._sections(generation, f"@{STEM_FIELD}:{MARK}{language}") for language in recorded
        }
        counted[ENGLISH] = await self._sections(generation, "*") - sum(
            count for language, count in counted.items() if language != ENGLISH
        )
        # What was written meanwhile has counted itself: only the differences are put right.
        wrong = {language: count - recorded.get(language, 0) for language, count in counted.items()}
        client = await self._manager.main()
        await self._correct(
            client, [Keyspace(namespace).languages], [part for pair in wrong.items() if pair[1] for part in pair]
        )
        self._known.pop(namespace, None)

    async def _sections(self, generation: Generation, query: str) -> int:
        client = await self._manager.main()
        # DIALECT: an older one would take the mark for something else.
        reply = await client.execute_command(
            "FT.SEARCH", generation.text_index, query, "VERBATIM", "NOCONTENT", "LIMIT", 0, 0, "DIALECT", 2
        )
        return int(reply[0])

    def _recent(self, noted: Mapping[str, float]) -> dict[str, float]:
        since = self._clock() - NOTED_FOR
        return {language: at for language, at in noted.items() if at >= since}

    async def _counts(self, namespace: str) -> Mapping[str, int]:
        known = self._known.get(namespace)
        if known is not None and self._clock() - known[0] < FRESH_FOR:
            return known[1]
        # Hundreds of searches may find at the same time that what is known is not fresh any more.
        reading = self._reading.get(namespace)
        if reading is None:
            loop = asyncio.get_running_loop()
            reading = self._reading[namespace] = loop.create_task(self._read(namespace), context=Context())
            reading.add_done_callback(lambda done: self._has_read(namespace, done))
        return await asyncio.shield(reading)

    def _has_read(self, namespace: str, done: asyncio.Task[Mapping[str, int]]) -> None:
        if self._reading.get(namespace) is done:
            del self._reading[namespace]
        if not done.cancelled():
            # Whoever waited may have gone; the loop would log it.
            done.exception()

    async def _read(self, namespace: str) -> Mapping[str, int]:
        client = await self._manager.main()
        fields = await client.hgetall(Keyspace(namespace).languages)  # type: ignore[misc]
        counts = {language: int(count) for language, count in fields.items() if int(count) > 0}
        self._known[namespace] = (self._clock(), counts)
        return counts

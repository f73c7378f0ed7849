"""A knowledge base in memory that counts common words, for the tests of the command line."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import Settings
from tests.support.pools import pool_stats

NOW = "2026-01-02T03:04:05+00:00"


class FakeBase:
    """Has the methods that the commands call, with the names and defaults of the real ones."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.facts: dict[str, dict[str, Any]] = {}
        self.dropped: list[str] = []
        self.searches: list[dict[str, Any]] = []
        self.questions: list[dict[str, Any]] = []
        self.reads: list[dict[str, Any]] = []
        self.deleted: list[dict[str, Any]] = []
        self.opened = 0
        self.closed = 0
        self.failure: BaseException | None = None
        self.indexed = True
        self.ready = True
        self.degraded: list[str] = []
        self.complete = True
        self.completed = True
        self.pending: list[int] = []

    def open(self, settings: Settings) -> FakeBase:
        self.settings = settings
        self.opened += 1
        return self

    async def close(self) -> None:
        self.closed += 1

    async def store_fact(
        self,
        content: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        fact_id: str | None = None,
        tags: Any = (),
        source: str | None = None,
        principals: Any = None,
        expires_in: float | None = None,
        on_duplicate: str = "return",
    ) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        if not content.strip():
            raise InvalidInputError("content", "must not be blank")
        for fact in self.facts.values():
            if fact["content"] == content:
                return {"status": "duplicate", "fact_id": fact["id"], "version": 1, "indexed": self.indexed}
        identity = fact_id or f"f{len(self.facts) + 1}"
        self.facts[identity] = {
            "id": identity,
            "content": content,
            "metadata": dict(metadata or {}),
            "tags": list(tags),
            "source": source,
            "namespace": self.settings.namespace,
            "principals": list(principals or []),
            "version": 1,
            "created_at": NOW,
            "updated_at": NOW,
            "expires_at": None if expires_in is None else f"in {expires_in:g} s",
            "indexed": self.indexed,
            "on_duplicate": on_duplicate,
        }
        return {"status": "success", "fact_id": identity, "version": 1, "indexed": self.indexed}

    async def store_facts(self, facts: Any, *, progress: Any = None) -> dict[str, Any]:
        duplicates = 0
        failed: list[dict[str, Any]] = []
        for place, fact in enumerate(facts):
            try:
                duplicates += (await self.store_fact(**fact))["status"] == "duplicate"
            except InvalidInputError as error:
                failed.append({"index": place, "error": str(error)})
            progress(place + 1, len(facts))
        return {
            "processed": len(facts),
            "succeeded": len(facts) - len(failed) - duplicates,
            "duplicates": duplicates,
            "failed": failed,
            "completed": self.completed,
        }

    async def get_fact(self, fact_id: str | None = None, query: str | None = None, **scope: Any) -> list[Any]:
        self.reads.append({"fact_id": fact_id, "query": query, **scope})
        if fact_id is not None:
            return [self.facts[fact_id]] if fact_id in self.facts else []
        return list(self.facts.values())

    async def search(self, query: str, top_k: int = 10, **scope: Any) -> dict[str, Any]:
        self.searches.append({"query": query, "top_k": top_k, **scope})
        if self.failure:
            raise self.failure
        words = set(re.findall(r"\w+", query.lower()))
        scored = [
            (len(words & set(re.findall(r"\w+", fact["content"].lower()))) / len(words), fact)
            for fact in self.facts.values()
        ]
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[:top_k]
        hits = [
            {
                "fact_id": fact["id"],
                "document_id": None,
                "content": fact["content"],
                "score": score,
                "scores": {"text": score},
                "metadata": fact["metadata"],
                "tags": fact["tags"],
                "source": fact["source"],
                "position": 0,
            }
            for score, fact in best
        ]
        mode = scope.get("mode", "hybrid")
        return {"hits": hits, "mode": mode, "degraded": self.degraded, "complete": self.complete, "took_ms": 1.0}

    async def ask(self, question: str, **scope: Any) -> dict[str, Any]:
        self.questions.append({"question": question, **scope})
        if self.failure:
            raise self.failure
        cited = {"number": 2, "fact_id": "f2", "source": "cup", "content": "Tea is hot."}
        passages = [{"number": 1, "fact_id": "f1", "source": None, "content": "Ice is cold."}, cited]
        return {"answer": "Tea is hot. [2]", "citations": [cited], "passages": passages, "degraded": self.degraded}

    async def stream_answer(self, question: str, **scope: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": "Tea is "}
        whole = await self.ask(question, **scope)
        yield {"delta": "hot. [2]"}
        yield {"answer": whole}

    async def get_stats(self) -> dict[str, Any]:
        pending = self.pending.pop(0) if len(self.pending) > 1 else sum(self.pending)
        return {
            "namespace": self.settings.namespace,
            "facts": len(self.facts),
            "passages": len(self.facts),
            "pending": pending,
            "embedding_model": "stub",
            "dimension": 8,
        }

    async def get_detailed_stats(self) -> dict[str, Any]:
        pool = pool_stats(1, 50)
        breaker = {"name": "redis", "state": "closed", "failures": 0, "opened": 0, "retry_after": 0.0}
        more = {"tags": {"a": 2}, "sources": {}, "index_name": None, "pools": {"main": pool}, "breakers": [breaker]}
        return {**await self.get_stats(), **more}

    async def health(self) -> dict[str, Any]:
        part = {"ok": self.ready, "detail": "PONG" if self.ready else "refused", "took_ms": 0.4}
        return {"live": True, "ready": self.ready, "parts": {"redis": part}}

    async def drop_namespace(self, namespace: str, *, confirm: str, progress: Any = None) -> dict[str, Any]:
        assert namespace == confirm == self.settings.namespace
        self.dropped.append(namespace)
        self.facts.clear()
        return {}

    async def delete_facts(self, filters: Any, *, principals: Any = None, progress: Any = None) -> dict[str, Any]:
        self.deleted.append({"filters": filters, "principals": principals})
        gone = [key for key, fact in self.facts.items() if fact["source"] == filters["source"]]
        for key in gone:
            del self.facts[key]
        return {"processed": len(gone), "succeeded": len(gone), "duplicates": 0, "failed": [], "completed": True}

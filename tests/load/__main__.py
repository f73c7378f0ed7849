"""Load on an OpenAI-compatible endpoint: ``python -m tests.load [--memory]``; exit code 1 when a limit is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from knowledge_base import EmbeddingSettings, KnowledgeBase, Settings
from tests.load.levels import ROUNDS, Levels
from tests.load.memory import QUERIES, memory
from tests.load.outage import CALLERS, outage
from tests.load.peers import Peers
from tests.load.questions import Question, answerable, collection, short_passages
from tests.load.verdicts import Verdicts
from tests.support.openai_process import EndpointProcess
from tests.support.polling import eventually
from tests.support.remote import KEY, MODEL
from tests.support.server import RedisServer

LATENCY = 0.1
SIZE = 384
BULK = 10_000
TEXTS_A_REQUEST = 20.0
WARM_UP = 20
INDEXED_WITHIN = 120.0


class Load:
    """One run.

    Args:
        server: A running server.
        endpoint: A running endpoint.
        verdicts: What is told.
        levels: Numbers of callers.
        peers: Whether the usual ways are measured too.
    """

    def __init__(
        self, server: RedisServer, endpoint: EndpointProcess, verdicts: Verdicts, levels: list[int], *, peers: bool
    ) -> None:
        self._server = server
        self._endpoint = endpoint
        self._verdicts = verdicts
        self._levels = levels
        self._peers = peers
        self._documents, self._questions = collection()

    def settings(self, namespace: str) -> Settings:
        """Returns the usual settings, but for what names the server and the endpoint."""
        embedding = EmbeddingSettings(
            provider="openai", base_url=self._endpoint.base_url, model=MODEL, api_key=KEY, dimension=SIZE
        )
        return Settings(redis_url=self._server.url, namespace=namespace, embedding=embedding)

    async def run(self) -> None:
        """Measures everything but memory."""
        questions = await self._prepared()
        at_levels = sum(callers * ROUNDS.get(callers, 1) for callers in self._levels)
        levels = Levels(self._endpoint, LATENCY, questions[WARM_UP:], self._levels)
        async with KnowledgeBase(self.settings("load")) as kb:
            await asyncio.gather(*(kb.search(question.text) for question in questions[:WARM_UP]))
            await levels.ours(kb, self._verdicts)
            await self._one_question(kb)
            await self._indexing(kb)
        unasked = questions[WARM_UP + at_levels :]
        assert len(unasked) >= CALLERS, "the collection has too few questions"
        await outage(self.settings("load"), self._endpoint, unasked[:CALLERS], self._verdicts)
        if self._peers:
            peers = await asyncio.to_thread(Peers, self._server.url, self._endpoint.base_url, self._documents, SIZE)
            await levels.theirs(peers, self._verdicts)

    async def remember(self, queries: int) -> None:
        """Measures memory."""
        questions = await self._prepared()
        await asyncio.to_thread(self._endpoint.tell, latency=0.0)
        await memory(self.settings("load"), self._server.pid, questions, self._verdicts, queries)

    async def _prepared(self) -> list[Question]:
        await asyncio.to_thread(self._endpoint.tell, latency=0.0)
        async with KnowledgeBase(self.settings("load")) as kb:
            result = await kb.store_facts(
                {"content": document.text, "fact_id": document.doc_id} for document in self._documents
            )
            assert result["succeeded"] == len(self._documents), result
            await _indexed(kb, "load")
        questions = await answerable(self.settings("load"), self._questions)
        print(
            f"{len(self._documents)} passages; {len(questions)} of {len(self._questions)} questions find their "
            "passage when asked in peace, and are asked again under load"
        )
        await asyncio.to_thread(self._endpoint.tell, latency=LATENCY, reset=True)
        return questions

    async def _one_question(self, kb: KnowledgeBase) -> None:
        self._verdicts.heading("one question of 100 callers")
        for name, wanted in (("requests for the first time", 1), ("requests when it is asked again", 0)):
            await asyncio.to_thread(self._endpoint.reset)
            await asyncio.gather(*(kb.search("Which question is asked by everybody?") for _ in range(CALLERS)))
            requests = (await asyncio.to_thread(self._endpoint.counters))["requests"]
            self._verdicts.judge(name, str(requests), str(wanted), requests == wanted)

    async def _indexing(self, kb: KnowledgeBase) -> None:
        self._verdicts.heading(f"indexing {BULK} passages")
        await asyncio.to_thread(self._endpoint.reset)
        began = time.perf_counter()
        result = await kb.store_facts(({"content": text} for text in short_passages(BULK)), namespace="bulk")
        took = time.perf_counter() - began
        await _indexed(kb, "bulk")
        counters = await asyncio.to_thread(self._endpoint.counters)
        self._verdicts.tell("store_facts", f"{result['succeeded']} facts in {took:.1f} s")
        self._verdicts.at_least("texts embedded", counters["texts"], BULK)
        self._verdicts.at_least("texts a request", counters["texts"] / counters["requests"], TEXTS_A_REQUEST)
        self._verdicts.at_most("requests at once", counters["most"], 10, "")


async def _indexed(kb: KnowledgeBase, namespace: str) -> None:
    async def nothing_waits() -> bool:
        return not (await kb.get_stats(namespace=namespace))["pending"]

    await eventually(nothing_waits, INDEXED_WITHIN)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--levels", default=",".join(map(str, ROUNDS)), help="numbers of concurrent callers")
    parser.add_argument("--no-peers", action="store_true", help="leave out the usual ways, which take minutes")
    parser.add_argument("--memory", action="store_true", help="measure memory over very many questions instead")
    parser.add_argument("--queries", type=int, default=QUERIES, help="how many questions --memory asks")
    chosen = parser.parse_args()
    verdicts = Verdicts()
    server = RedisServer()
    server.start()
    try:
        with EndpointProcess(latency=LATENCY, size=SIZE) as endpoint:
            levels = [int(callers) for callers in chosen.levels.split(",")]
            load = Load(server, endpoint, verdicts, levels, peers=not chosen.no_peers)
            asyncio.run(load.remember(chosen.queries) if chosen.memory else load.run())
    finally:
        server.remove()
    print(verdicts.summary())
    return 1 if verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())

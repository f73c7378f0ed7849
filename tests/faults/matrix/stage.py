"""Where a fault is played: a server, a proxy before it, and knowledge bases that have worked with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from knowledge_base import KnowledgeBase
from knowledge_base.settings import BreakerSettings, Settings, Timeouts
from tests.faults.matrix.calls import ADDED, BIRDS, CHANGED, DOOMED, KEPT, KEPT_IDS, SOUGHT, WORDS
from tests.support.control import Control
from tests.support.embeddings import StubEmbedding
from tests.support.fault_proxy import FaultProxy
from tests.support.leaks import Footprint
from tests.support.llms import ScriptedLLM
from tests.support.polling import eventually
from tests.support.server import RedisServer
from tests.support.sockets import open_sockets

PASSWORD = "first"
ROOT = "root on >root ~* &* +@all"
REDIS = 0.3
CLOSE = 2.0
NEVER_OPENS = BreakerSettings(failures=10_000)
OPENS = BreakerSettings(failures=5, reset_after=0.3)
SPARE = [f"after-{number}" for number in range(40)]
"""Labels of callers after the fault."""


def timeouts() -> Timeouts:
    return Timeouts(redis=REDIS, connect=REDIS, llama_index=1.0, close=CLOSE)


@dataclass
class Promises:
    """What calls said that they had done."""

    stored: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


class Stage:
    """One server with its users.

    Attributes:
        steady: A knowledge base whose breaker never opens: each call meets the fault itself.
        guarded: One whose breaker opens after five failures, and probes after 0.3 s.
        leaver: One that is closed in the midst of the fault.

    Args:
        callers: Labels of everybody who will call.
        proxied: Whether they reach the server through the proxy.
    """

    def __init__(self, callers: Iterable[str], *, proxied: bool) -> None:
        self.callers = [*callers, *SPARE]
        self.promises = Promises()
        self.model = StubEmbedding(model_name="stub")
        self.llm = ScriptedLLM()
        self.server = RedisServer(tcp=True, password=PASSWORD, acl=(ROOT,), fsync="always")
        self.server.start()
        self.control = Control(self.server.url_for("root", "root"))
        self._before = Footprint.taken(self.control)
        self._sockets = len(open_sockets())
        self.proxy = FaultProxy(self.server.port).start()
        self.url = self.proxy.url_for(None, PASSWORD) if proxied else self.server.url
        self.steady = self._knowledge_base(NEVER_OPENS)
        self.guarded = self._knowledge_base(OPENS)
        self.leaver = self._knowledge_base(NEVER_OPENS)

    def witness(self) -> KnowledgeBase:
        """Returns a patient knowledge base with a way of its own to the server."""
        return KnowledgeBase(Settings(redis_url=self.server.url, namespace=KEPT), embed_model=self.model)

    async def furnish(self) -> None:
        """Stores what the calls are about."""
        async with self.witness() as kb:
            for number, fact_id in enumerate(sorted(KEPT_IDS - {SOUGHT})):
                tags = ["birds"] if fact_id in BIRDS else []
                await kb.store_fact(f"walrus number {number} dives", fact_id=fact_id, tags=tags)
            await kb.store_fact("penguins", fact_id=SOUGHT, tags=["birds"])
            await kb.update_fact(SOUGHT, content=WORDS)
            for prefix in ("d", "t"):
                names = [f"{prefix}-{who}" for who in self.callers]
                await kb.store_facts(
                    [{"content": f"doomed {name}", "fact_id": name, "tags": [name]} for name in names], namespace=DOOMED
                )
            changed = [{"content": f"old for {who}", "fact_id": f"u-{who}"} for who in self.callers]
            await kb.store_facts(changed, namespace=CHANGED)
            await kb.store_fact("the first", fact_id="first", namespace=ADDED)

    async def broken_promises(self) -> list[str]:
        """Returns what calls acknowledged and the server does not hold."""
        async with self.witness() as kb:
            added = {fact["id"] async for fact in kb.iter_facts(namespace=ADDED)}
            doomed = {fact["id"] async for fact in kb.iter_facts(namespace=DOOMED)}
            changed = {fact["id"] async for fact in kb.iter_facts(namespace=CHANGED) if fact["version"] > 1}
        lost = {
            "acknowledged, and lost": self.promises.stored - added,
            "deleted, and there": self.promises.deleted & doomed,
            "changed, and as before": self.promises.changed - changed,
        }
        return [f"{what}: {sorted(ids)}" for what, ids in lost.items() if ids]

    async def clear(self) -> list[str]:
        """Closes everything and returns what was left behind."""
        for kb in (self.steady, self.guarded, self.leaver):
            await kb.close()
        self.proxy.close()
        found: list[str] = []

        def clean() -> bool:
            found[:] = self._before.leaked(self.control)
            more = len(open_sockets()) - self._sockets
            found.extend([f"{more} sockets"] if more > 0 else [])
            return not found

        try:
            await eventually(clean)
        except AssertionError:
            return found
        finally:
            self.control.close()
            self.server.remove()
        return []

    def _knowledge_base(self, breaker: BreakerSettings) -> KnowledgeBase:
        settings = Settings(redis_url=self.url, namespace=KEPT, timeouts=timeouts(), breaker=breaker)
        return KnowledgeBase(settings, embed_model=self.model, llm=self.llm)

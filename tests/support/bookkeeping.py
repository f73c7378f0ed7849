"""Whether everything that is stored of a namespace's facts agrees, as seen from outside."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import redis

from knowledge_base.facts.draft import content_digest
from knowledge_base.keyspace import OPEN, Keyspace
from tests.support.polling import eventually

Hash = dict[str, str]
AT_ONCE = 500


@dataclass
class Bookkeeping:
    """Every key of one namespace, read once; only of use while nobody writes.

    Expired facts whose parts the server has taken already, and that nobody has swept yet, are left out.
    """

    client: redis.Redis
    namespace: str
    keys: Keyspace = field(init=False)
    facts: dict[str, Hash] = field(init=False)
    parts: dict[str, bool] = field(init=False)
    """Key of each passage and section, and whether it has a vector."""
    names: set[str] = field(init=False)
    generation: str = field(init=False)

    def __post_init__(self) -> None:
        self.keys = Keyspace(self.namespace)
        self.names = set(self.client.scan_iter(f"{self.keys.root}*", count=10_000))
        self.generation = str(self.client.hget(self.keys.generation, "number") or 1)
        ids = self._ids("fact:")
        hashes = self._each("HGETALL", [self.keys.fact(fact_id) for fact_id in ids])
        now = time.time() * 1000
        found = {fact_id: _paired(one) for fact_id, one in zip(ids, hashes, strict=True)}
        self.facts = {key: fact for key, fact in found.items() if not 0 < float(fact["expires_at"] or 0) <= now}
        parts = sorted(
            name for name in self.names if name.startswith((self._prefix("passage"), self._prefix("section")))
        )
        vectors = self._each("HEXISTS", parts, "vector")
        self.parts = {key: bool(has) for key, has in zip(parts, vectors, strict=True)}

    @property
    def pending(self) -> set[str]:
        """The facts that wait for vectors."""
        return set(self._scores(self.keys.pending))

    @property
    def parked(self) -> set[str]:
        """The facts that the model refused for good."""
        return set(self._hash(self.keys.parked))

    def faults(self, *, settled: bool = True) -> list[str]:
        """What does not agree, in words; nothing when all is well.

        Args:
            settled: Whether inserts for a revision that was never switched to must have been taken back.
        """
        facts = self.facts
        parts = self._expected_parts()
        expected: dict[str, tuple[Any, Any]] = {
            "facts by sequence number": (
                {key: float(fact["seq"]) for key, fact in facts.items()},
                self._scores(self.keys.facts),
            ),
            "facts by content": (
                {fact["digest"]: key for key, fact in facts.items()},
                self._hash(self.keys.contents),
            ),
            "number of contents": (len(facts), len({fact["digest"] for fact in facts.values()})),
            "digests": (
                {key: content_digest(fact["content"], json.loads(fact["principals"])) for key, fact in facts.items()},
                {key: fact["digest"] for key, fact in facts.items()},
            ),
            "tags": (
                Counter(tag for fact in facts.values() for tag in json.loads(fact["tags"])),
                self._counts(self.keys.tag_counts),
            ),
            "sources": (
                Counter(fact["source"] for fact in facts.values() if fact["source"]),
                self._counts(self.keys.source_counts),
            ),
            "facts that expire": (
                {key: float(fact["expires_at"]) for key, fact in facts.items() if fact["expires_at"]},
                self._scores(self.keys.expiring),
            ),
            "passages counted": (
                sum(int(fact["passages"]) for fact in facts.values()),
                int(self._hash(self.keys.counters).get("passages", 0)),
            ),
            "passages and sections": (parts, set(self.parts) if settled else parts & set(self.parts)),
            "facts that wait for vectors": (
                {key for key, fact in facts.items() if fact["indexed"] != "1"},
                self.pending | self.parked,
            ),
            "facts both pending and parked": (set(), self.pending & self.parked),
            "attempts at what waits no longer": (set(), set(self._hash(self.keys.attempts)) - self.pending),
            "inserts of what waits no longer": (set(), self._inserts() - self.pending if settled else set()),
            "passages without a vector": (set(), self._without_vector()),
            "histories of nobody": (set(), set(self._ids("history:")) - set(facts)),
            **self._listings(),
        }
        return [
            f"{what}: {_difference(should, found)}" for what, (should, found) in expected.items() if should != found
        ]

    def _inserts(self) -> set[str]:
        return {member.rpartition(":")[0] for member in self._scores(self.keys.inserts)}

    def _listings(self) -> dict[str, tuple[Any, Any]]:
        expected: dict[str, dict[str, float]] = {name: {} for name in self._ids("visible:")}
        for key, fact in self.facts.items():
            for principal in json.loads(fact["principals"]) or [OPEN]:
                expected.setdefault(principal, {})[key] = float(fact["seq"])
        return {f"facts that {who} sees": (ids, self._scores(self.keys.visible(who))) for who, ids in expected.items()}

    def _expected_parts(self) -> set[str]:
        return {part for key in self.facts for kind in ("passage", "section") for part in self._parts_of(key, kind)}

    def _without_vector(self) -> set[str]:
        indexed = [key for key, fact in self.facts.items() if fact["indexed"] == "1"]
        return {part for key in indexed for part in self._parts_of(key, "passage") if not self.parts.get(part)}

    def _parts_of(self, fact_id: str, kind: str) -> list[str]:
        fact = self.facts[fact_id]
        begin = f"{self._prefix(kind)}{fact_id}:{fact['revision']}:"
        return [f"{begin}{position}" for position in range(int(fact[f"{kind}s"]))]

    def _prefix(self, kind: str) -> str:
        return f"{self.keys.root}{kind}:{self.generation}:"

    def _ids(self, kind: str) -> list[str]:
        begin = self.keys.root + kind
        return sorted(name.removeprefix(begin) for name in self.names if name.startswith(begin))

    def _each(self, command: str, keys: list[str], *arguments: str) -> list[Any]:
        replies: list[Any] = []
        for begin in range(0, len(keys), AT_ONCE):
            pipeline = self.client.pipeline(transaction=False)
            for key in keys[begin : begin + AT_ONCE]:
                pipeline.execute_command(command, key, *arguments)
            replies += pipeline.execute()
        return replies

    def _hash(self, key: str) -> Hash:
        return _paired(self.client.hgetall(key))

    def _counts(self, key: str) -> dict[str, int]:
        return {label: int(count) for label, count in self._hash(key).items()}

    def _scores(self, key: str) -> dict[str, float]:
        found: Any = self.client.zrange(key, 0, -1, withscores=True)
        return dict(found)


def _paired(reply: Any) -> Hash:
    return dict(reply)


def _difference(should: Any, found: Any) -> str:
    if isinstance(should, dict) and isinstance(found, dict):
        keys = sorted(key for key in {*should, *found} if should.get(key) != found.get(key))
        return "; ".join(f"{key}: {found.get(key)!r} instead of {should.get(key)!r}" for key in keys[:5])
    if isinstance(should, set):
        return f"missing {sorted(should - found)[:5]}, too many {sorted(found - should)[:5]}"
    return f"{found!r} instead of {should!r}"


async def settles(client: redis.Redis, namespace: str, within: float) -> list[str]:
    """What still does not agree after some time, which the background gets to put things right.

    Vectors that came for a revision which is not its fact's are taken back by their record, made due at once.

    Args:
        client: Decodes its answers.
        namespace: What is looked at.
        within: Seconds until what is found counts.
    """
    left: list[str] = []

    def agrees() -> bool:
        inserts = Keyspace(namespace).inserts
        recorded: Any = client.zrange(inserts, 0, -1)
        if recorded:
            client.zadd(inserts, dict.fromkeys(recorded, 0), xx=True)
        left[:] = Bookkeeping(client, namespace).faults()
        return not left

    try:
        await eventually(agrees, within)
    except AssertionError:
        return left
    return []

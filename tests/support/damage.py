"""Ways to damage what is stored of facts, through a client that knows nothing of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from knowledge_base.keyspace import Keyspace

LONG = "\n\n".join(f"Sentence {n} about walruses and ice." for n in range(120))
LATER = 9_999_999_999_999
"""A time in milliseconds that does not come."""

FACTS: tuple[dict[str, Any], ...] = (
    {"content": LONG, "fact_id": "long", "tags": ["sea", "cold"], "source": "book"},
    {"content": "penguins swim", "fact_id": "p", "metadata": {"colour": "black"}, "principals": ["ann"]},
    {"content": "penguins dive", "fact_id": "q", "tags": ["sea"]},
    {"content": "walruses sleep", "fact_id": "w", "tags": ["cold"], "expires_in": 100_000.0},
    {"content": "terns fly", "fact_id": "a:b", "source": "book"},
)
"""What a base is filled with that is to be damaged: several passages, principals, an expiry, a colon in the id."""


class Damaged:
    """The keys of one namespace, and the raw client that damages them.

    Args:
        raw: Decodes its answers.
        namespace: The namespace.
    """

    def __init__(self, raw: redis.Redis, namespace: str) -> None:
        self.raw: Any = raw
        self.keys = Keyspace(namespace)

    def parts(self, fact_id: str, kind: str = "passage") -> list[str]:
        """The keys of a fact's passages, or sections, in order."""
        number = self.raw.hget(self.keys.generation, "number")
        revision = self.raw.hget(self.keys.fact(fact_id), "revision")
        begin = f"{self.keys.root}{kind}:{number}:{fact_id}:{revision}:"
        found = [key for key in self.raw.scan_iter(f"{self.keys.root}*", count=1_000) if key.startswith(begin)]
        return sorted(found, key=lambda key: int(key.rpartition(":")[2]))

    def copy(self, key: str, new: str) -> bool:
        """Puts another hash beside one."""
        return bool(self.raw.copy(key, f"{self.keys.root}{new}"))


class Damage(NamedTuple):
    """One way, and what a check must say of it."""

    work: Callable[[Damaged], Any]
    findings: Mapping[str, int]
    names: tuple[str, ...] = ()
    """What the examples name, where it is a fact."""


def _drop_indices(on: Damaged) -> None:
    for name in (on.keys.text_index(1), on.keys.vector_index(1)):
        on.raw.execute_command("FT.DROPINDEX", name)


def _make_index(on: Damaged, *, prefix: str, dimension: int = 32) -> None:
    name = on.keys.vector_index(1)
    on.raw.execute_command("FT.DROPINDEX", name)
    vector = ["vector", "VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", dimension, "DISTANCE_METRIC", "COSINE"]
    tags = [
        word
        for field in ("principals", "tags", "source", "meta", "fact_id", "document")
        for word in (field, "TAG", "SEPARATOR", "\x1f")
    ]
    schema = [*tags, "created_at", "NUMERIC", "updated_at", "NUMERIC", *vector]
    on.raw.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA", *schema)


def _forget_documents_of_index(on: Damaged) -> None:
    # The index is as it should be, and was made without a look at what is stored.
    from knowledge_base.index.schema import Generation, vector_index_command

    generation = Generation(on.keys.namespace, 1, "stub", 32)
    on.raw.execute_command("FT.DROPINDEX", generation.vector_index)
    on.raw.execute_command(*vector_index_command(generation, scan=False))


DAMAGES: dict[str, Damage] = {
    "a passage is gone": Damage(lambda on: on.raw.delete(on.parts("long")[1]), {"missing_parts": 1}, ("long",)),
    "a section is gone": Damage(
        lambda on: on.raw.delete(on.parts("a:b", "section")[0]), {"missing_parts": 1}, ("a:b",)
    ),
    "all parts of a fact are gone": Damage(
        lambda on: on.raw.delete(*on.parts("p"), *on.parts("p", "section")), {"missing_parts": 1}, ("p",)
    ),
    "a passage has lost its text": Damage(
        lambda on: on.raw.hdel(on.parts("q")[0], "text"), {"missing_parts": 1}, ("q",)
    ),
    "a passage is shown to everybody": Damage(
        lambda on: on.raw.hset(on.parts("p")[0], "principals", "*"), {"wrong_labels": 1}, ("p",)
    ),
    "a section has lost its tags": Damage(
        lambda on: on.raw.hdel(on.parts("long", "section")[0], "tags"), {"wrong_labels": 1}, ("long",)
    ),
    "a passage expires although its fact does not": Damage(
        lambda on: on.raw.expire(on.parts("q")[0], 50_000), {"wrong_labels": 1}, ("q",)
    ),
    "a passage outlives its fact": Damage(lambda on: on.raw.persist(on.parts("w")[0]), {"wrong_labels": 1}, ("w",)),
    "a vector is too short": Damage(
        lambda on: on.raw.hset(on.parts("q")[0], "vector", b"\x00" * 64), {"wrong_vectors": 1}, ("q",)
    ),
    "a vector is gone": Damage(
        lambda on: on.raw.hdel(on.parts("long")[2], "vector"), {"missing_vectors": 1}, ("long",)
    ),
    "a fact counts as not indexed": Damage(
        lambda on: on.raw.hset(on.keys.fact("q"), "indexed", "0"), {"forgotten": 1}, ("q",)
    ),
    "a fact is not listed": Damage(lambda on: on.raw.zrem(on.keys.facts, "q"), {"unlisted": 1}, ("q",)),
    "a fact is listed in another place": Damage(
        lambda on: on.raw.zadd(on.keys.facts, {"q": 77}), {"unlisted": 1}, ("q",)
    ),
    "a fact is not shown to its principal": Damage(
        lambda on: on.raw.zrem(on.keys.visible("ann"), "p"), {"unlisted": 1}, ("p",)
    ),
    "an expiry is forgotten": Damage(lambda on: on.raw.delete(on.keys.expiring), {"unlisted": 1}, ("w",)),
    "a content is not known": Damage(
        lambda on: on.raw.hdel(on.keys.contents, on.raw.hget(on.keys.fact("q"), "digest")), {"unlisted": 1}, ("q",)
    ),
    "passages of nobody": Damage(
        lambda on: [on.copy(on.parts("q")[0], f"passage:1:gone:1-abc-2:{n}") for n in range(2)], {"stray_parts": 2}
    ),
    "a section of an old revision": Damage(
        lambda on: on.copy(on.parts("q", "section")[0], "section:1:q:1-abc-1:0"), {"stale_parts": 1}
    ),
    "a passage beyond the last": Damage(
        lambda on: on.copy(on.parts("q")[0], on.parts("q")[0].removeprefix(on.keys.root)[:-1] + "1"),
        {"stale_parts": 1},
    ),
    "parts of a generation that nobody uses": Damage(
        lambda on: [on.copy(on.parts("q", kind)[0], f"{kind}:7:q:1-abc-1:0") for kind in ("passage", "section")],
        {"orphaned_generations": 2},
    ),
    "a history of nobody": Damage(lambda on: on.raw.lpush(on.keys.history("gone"), "{}"), {"stray_history": 1}),
    "a list names nobody": Damage(lambda on: on.raw.zadd(on.keys.facts, {"gone": 5}), {"stray_entries": 1}),
    "a principal sees nobody": Damage(
        lambda on: on.raw.zadd(on.keys.visible("bob"), {"gone": 5, "q": 6}), {"stray_entries": 2}
    ),
    "a document that is none": Damage(
        lambda on: on.raw.zadd(on.keys.documents, {"gone": 5, "q": 6}), {"stray_entries": 2}
    ),
    "a content of nobody": Damage(lambda on: on.raw.hset(on.keys.contents, "d", "gone"), {"stray_entries": 1}),
    "an expiry of what does not expire": Damage(
        lambda on: on.raw.zadd(on.keys.expiring, {"q": LATER, "gone": LATER}), {"stray_entries": 2}
    ),
    "nobody is pending": Damage(lambda on: on.raw.zadd(on.keys.pending, {"gone": LATER}), {"stray_pending": 1}),
    "attempts at what does not wait": Damage(lambda on: on.raw.hset(on.keys.attempts, "q", 3), {"stray_pending": 1}),
    "a tag is counted too often": Damage(lambda on: on.raw.hincrby(on.keys.tag_counts, "sea", 3), {"wrong_counts": 1}),
    "a source is not counted": Damage(lambda on: on.raw.delete(on.keys.source_counts), {"wrong_counts": 1}),
    "a tag that nobody has": Damage(lambda on: on.raw.hset(on.keys.tag_counts, "none", 4), {"wrong_counts": 1}),
    "passages are miscounted": Damage(lambda on: on.raw.hincrby(on.keys.counters, "passages", -2), {"wrong_counts": 1}),
    "the record of the live index is gone": Damage(lambda on: on.raw.delete(on.keys.generation), {"missing_index": 1}),
    "both indices are gone": Damage(_drop_indices, {"missing_index": 2}),
    "the index looks at other keys": Damage(
        lambda on: _make_index(on, prefix=f"{on.keys.root}other:"), {"wrong_index": 1}
    ),
    "the index is for longer vectors": Damage(
        lambda on: _make_index(on, prefix=f"{on.keys.passages(1)}:", dimension=64), {"wrong_index": 1}
    ),
    "the index knows nothing": Damage(_forget_documents_of_index, {"incomplete_index": 1}),
}
"""What can be mended without loss: the base is as it was."""

LASTING: dict[str, Damage] = {
    "a key of nobody's": Damage(lambda on: on.raw.set(f"{on.keys.root}mine", "x"), {"unknown_keys": 1}),
    "a string where a fact's history is": Damage(
        lambda on: on.raw.set(on.keys.history("q"), "x"), {"foreign_types": 1}
    ),
    "a list where a fact is to be": Damage(lambda on: on.raw.lpush(on.keys.fact("mine"), "x"), {"foreign_types": 1}),
    "a record has lost its content": Damage(
        lambda on: on.raw.hdel(on.keys.fact("q"), "content"), {"damaged_records": 1}, ("q",)
    ),
    "a record's tags are no list": Damage(
        lambda on: on.raw.hset(on.keys.fact("q"), "tags", "sea"), {"damaged_records": 1}, ("q",)
    ),
    "a list is a string": Damage(
        lambda on: (on.raw.delete(on.keys.expiring), on.raw.set(on.keys.expiring, "x")), {"foreign_types": 1}
    ),
}
"""What cannot be mended, and is left as it is."""

"""The names of all keys in Redis, in one place.

Every key of a namespace carries it as hash tag, so that on Redis Cluster a namespace lives on one shard.
"""

from __future__ import annotations

from typing import NamedTuple

NAMESPACES_KEY = "kb:namespaces"
"""Set of every namespace that was ever written to; with the keys of jobs the only one outside a namespace."""

JOBS_KEY = "kb:jobs:{all}"
"""Sorted set of all background jobs, by the time (ms) they were started; their keys share its hash tag."""

SELF_TEST_PREFIX = "kb:{self-test}:"
"""Begins the names of scratch indices and their keys, which live for seconds."""

SWITCHED_OFF = "off"
"""Stands in the place of a generation's number while its namespace is being dropped or renamed."""

OPEN = "*"
"""Stands for "everybody" where principals are listed."""

EVERY_NAMESPACE = "*"
"""Stands for all namespaces where a call takes it."""


def job_keys(job_id: str) -> list[str]:
    """Returns the keys that tell of a background job: the set of all, its hash, the list of its log lines.

    Args:
        job_id: The job.
    """
    return [JOBS_KEY, f"{JOBS_KEY}:job:{job_id}", f"{JOBS_KEY}:log:{job_id}"]


class PartName(NamedTuple):
    """What the name of a passage or section says: whose it is, of which revision, and its place there."""

    fact_id: str
    revision: str
    position: int

    @property
    def node_id(self) -> str:
        """The end of its key; a passage's id in LlamaIndex."""
        return f"{self.fact_id}:{self.revision}:{self.position}"

    @classmethod
    def parse(cls, name: str) -> PartName:
        """Reads a node id.

        Args:
            name: What ``node_id`` gave.
        """
        fact_id, revision, position = name.rsplit(":", 2)
        return cls(fact_id, revision, int(position))


class Keyspace:
    """The keys of one namespace.

    Args:
        namespace: A validated namespace.
    """

    __slots__ = ("namespace", "root")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.root = f"kb:{{{namespace}}}:"

    def fact(self, fact_id: str) -> str:
        """Hash of a fact."""
        return f"{self.root}fact:{fact_id}"

    def history(self, fact_id: str) -> str:
        """List of a fact's earlier versions, newest first."""
        return f"{self.root}history:{fact_id}"

    def visible(self, principal: str) -> str:
        """Sorted set of the facts that a principal may see, by sequence number."""
        return f"{self.root}visible:{principal}"

    def text_index(self, generation: int, build: int = 1) -> str:
        """Name of a generation's index of words."""
        return f"{self.root}index:{_numbered(generation, build)}"

    def vector_index(self, generation: int, build: int = 1) -> str:
        """Name of a generation's index of vectors."""
        return f"{self.root}vectors:{_numbered(generation, build)}"

    def passages(self, generation: int) -> str:
        """Prefix of the passages of a generation, without the last colon."""
        return f"{self.root}passage:{generation}"

    def sections(self, generation: int) -> str:
        """Prefix of the sections of a generation, without the last colon."""
        return f"{self.root}section:{generation}"

    @property
    def generation(self) -> str:
        """Hash that records the live generation, its embedding model and dimension."""
        return f"{self.root}generation"

    @property
    def rebuild(self) -> str:
        """Hash that records a rebuild under way: its generation, its owner's lease and how far it is."""
        return f"{self.root}rebuild"

    @property
    def changed(self) -> str:
        """Sorted set of the facts that were changed during a rebuild, by the number of the change."""
        return f"{self.root}changed"

    @property
    def unembedded(self) -> str:
        """Set of the facts that have no vectors in the generation that is being built."""
        return f"{self.root}unembedded"

    @property
    def retired(self) -> str:
        """Sorted set of the generations that are to be dropped, as number:build, by the time (ms) they may be."""
        return f"{self.root}retired"

    @property
    def copying(self) -> str:
        """Hash that records that the namespace is being filled from another: its source, and who is at it."""
        return f"{self.root}copying"

    @property
    def copied(self) -> str:
        """Set of the facts and documents that were copied from there so far."""
        return f"{self.root}copied"

    @property
    def contents(self) -> str:
        """Hash from the digest of a content (and its principals) to the fact that has it."""
        return f"{self.root}contents"

    @property
    def facts(self) -> str:
        """Sorted set of all facts, by sequence number."""
        return f"{self.root}facts"

    @property
    def documents(self) -> str:
        """Sorted set of all documents, by sequence number."""
        return f"{self.root}documents"

    @property
    def pending(self) -> str:
        """Sorted set of the facts that wait for vectors, by the time (ms) of the next attempt."""
        return f"{self.root}pending"

    def document(self, document_id: str) -> str:
        """Hash of a document's blocks, in compressed pieces named by revision and place."""
        return f"{self.root}document:{document_id}"

    @property
    def staged(self) -> str:
        """Sorted set of the revisions of documents that are being written, by the time (ms) they count as given up."""
        return f"{self.root}staged"

    @property
    def leftovers(self) -> str:
        """Sorted set of the revisions of documents whose parts are to be removed, by the time (ms) to do it."""
        return f"{self.root}leftovers"

    @property
    def attempts(self) -> str:
        """Hash from fact to how often indexing it was tried in vain."""
        return f"{self.root}attempts"

    @property
    def parked(self) -> str:
        """Hash from fact to why indexing it was given up, as JSON: reason, attempts, since (ms)."""
        return f"{self.root}parked"

    @property
    def inserts(self) -> str:
        """Sorted set of the revisions whose vectors are on their way, by the time (ms) to look after them."""
        return f"{self.root}inserts"

    def cached_vector(self, slot: int) -> str:
        """String with the vector of a query that was asked lately."""
        return f"{self.root}query_vector:{slot}"

    @property
    def expiring(self) -> str:
        """Sorted set of the facts that expire, by the time (ms) they do."""
        return f"{self.root}expiring"

    def import_journal(self, name: str) -> str:
        """String that says how far an import came, as JSON; expires.

        Args:
            name: Hexadecimal digest of the file and the options.
        """
        return f"{self.root}import:{name}"

    @property
    def counters(self) -> str:
        """Hash of counters: the last sequence number, passages."""
        return f"{self.root}counters"

    @property
    def languages(self) -> str:
        """Hash from the language of sections to how many were written."""
        return f"{self.root}languages"

    @property
    def tag_counts(self) -> str:
        """Hash from tag to the number of its facts."""
        return f"{self.root}tag_counts"

    @property
    def source_counts(self) -> str:
        """Hash from source to the number of its facts."""
        return f"{self.root}source_counts"


def _numbered(generation: int, build: int) -> str:
    return str(generation) if build == 1 else f"{generation}.{build}"

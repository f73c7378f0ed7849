"""Facts of a transfer file: cut as is configured now, restored with their vectors, or embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from knowledge_base.admin.transfer.claims import Claim, ImportPass
from knowledge_base.admin.transfer.import_tally import ImportTally
from knowledge_base.admin.transfer.imported_fact import ImportedFact
from knowledge_base.connection.driver_errors import translated
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.errors import InvalidInputError, KnowledgeBaseError, UnavailableError
from knowledge_base.facts.parts import Described, FactParts, PartMaker
from knowledge_base.facts.restore import FactRestorer, Restored, WholeFact
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.generations import GenerationMovedError, Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.schema import Generation
from knowledge_base.types import OnConflict

NEVER_WRITTEN = 1
"""Number of the generation that a namespace would get."""


class ReadFact(NamedTuple):
    """A fact as it stands in a file."""

    line: int
    namespace: str
    """Where it goes."""
    fact: ImportedFact
    model: Mapping[str, Any] | None
    """What the file says of the model of its vectors."""


class PreparedFact(NamedTuple):
    """A fact that is ready to be restored."""

    line: int
    namespace: str
    fact: WholeFact | InvalidInputError
    """The fact, or why it is refused."""
    model: tuple[Any, Any] | None
    """Model and dimension of its vectors, where they belong to its passages."""


class FactImport:
    """Restores the facts of transfer files.

    Args:
        parts: Makes the parts of facts.
        restorer: Writes them.
        indexer: Gives passages their vectors that have none.
        background: Completes what has to wait for them.
        generations: Where each namespace's passages are.
        embeddings: Says which model a new namespace would get.
        limit: Seconds that making the parts of one fact may take.
    """

    def __init__(
        self,
        parts: PartMaker,
        restorer: FactRestorer,
        indexer: Indexer,
        background: BackgroundIndexer,
        generations: Generations,
        embeddings: Embeddings,
        *,
        limit: float,
    ) -> None:
        self._parts = parts
        self._restorer = restorer
        self._indexer = indexer
        self._background = background
        self._generations = generations
        self._embeddings = embeddings
        self._limit = limit

    async def generation(self, namespace: str, *, dry_run: bool) -> Generation:
        """Returns where facts go.

        Args:
            namespace: The namespace.
            dry_run: Whether nothing may be made for it.

        Raises:
            IndexMismatchError: The index was built with another model or dimension than is configured.
        """
        if dry_run and await self._generations.current(namespace) is None:
            identity = await self._embeddings.current.identity()
            return Generation(namespace, NEVER_WRITTEN, identity.model, identity.dimension)
        return await self._indexer.generation(namespace)

    async def prepared(self, namespace: str, read: Sequence[ReadFact]) -> list[PreparedFact]:
        """Returns facts with their parts.

        Args:
            namespace: Where they go.
            read: The facts.
        """
        described = [
            Described(fact.content, fact.metadata, fact.tags, fact.source, fact.principals)
            for fact in (one.fact for one in read)
        ]
        made = await self._parts.make_all(namespace, described, self._limit * len(read))
        return [_prepared(one, parts) for one, parts in zip(read, made, strict=True)]

    async def restore(
        self, prepared: Sequence[PreparedFact], walk: ImportPass, tally: ImportTally, *, again: bool = False
    ) -> None:
        """Restores facts, and counts what became of them.

        Args:
            prepared: Facts of one namespace.
            walk: How.
            tally: Counted on.
            again: Whether this was tried before, so that what is there already may be from then.

        Raises:
            UnavailableError: Redis could not be reached; nothing is known of some of them, and all may come again.
        """
        namespace = prepared[0].namespace
        facts: list[tuple[int, WholeFact]] = []
        for line, fact in await self._fitting(prepared, tally, dry_run=walk.dry_run):
            displaces = (walk.displaced or {}).get(line, "")
            facts.append((line, fact._replace(displaces=displaces) if displaces else fact))
        generation = await self.generation(namespace, dry_run=walk.dry_run)
        outcomes = await self._outcomes(generation, [fact for _, fact in facts], walk.on_conflict, dry_run=walk.dry_run)
        embedded: list[WholeFact] = []
        for (line, fact), outcome in zip(facts, outcomes, strict=True):
            outcome = _foreseen(walk, namespace, fact, outcome)
            if self._counted(line, outcome, walk, tally, again=again) and fact.vectors is None:
                tally.embedded += 1
                embedded.append(fact)
        if not walk.dry_run:
            await self._embed(namespace, embedded)

    async def claims(self, prepared: Sequence[PreparedFact], walk: ImportPass) -> dict[int, Claim]:
        """Returns, by line, the contents that facts are to have, and which facts have them now; changes nothing.

        Args:
            prepared: Facts of one namespace.
            walk: How they are restored.

        Raises:
            UnavailableError: Redis could not be reached.
        """
        namespace = prepared[0].namespace
        facts = await self._fitting(prepared, ImportTally(), dry_run=True)
        generation = await self.generation(namespace, dry_run=True)
        outcomes = await self._outcomes(generation, [fact for _, fact in facts], walk.on_conflict, dry_run=True)
        claims: dict[int, Claim] = {}
        for (line, fact), outcome in zip(facts, outcomes, strict=True):
            if walk.memory is not None and isinstance(outcome, Restored):
                outcome = walk.memory.outcome(namespace, fact, outcome, walk.on_conflict)
            if isinstance(outcome, Restored) and (outcome.is_written or outcome.status == "duplicate"):
                owner = outcome.fact_id if outcome.status == "duplicate" else None
                claims[line] = Claim(namespace, fact.fact_id, fact.parts.digest, owner)
        return claims

    async def _fitting(
        self, prepared: Sequence[PreparedFact], tally: ImportTally, *, dry_run: bool
    ) -> list[tuple[int, WholeFact]]:
        generation = await self.generation(prepared[0].namespace, dry_run=dry_run)
        facts: list[tuple[int, WholeFact]] = []
        for one in prepared:
            if isinstance(one.fact, InvalidInputError):
                tally.fail(one.line, str(one.fact))
                continue
            fits = one.model == (generation.model, generation.dimension)
            facts.append((one.line, one.fact if fits else one.fact._replace(vectors=None)))
        return facts

    async def _outcomes(
        self, generation: Generation, facts: Sequence[WholeFact], on_conflict: OnConflict, *, dry_run: bool
    ) -> list[Restored | Exception]:
        outcomes = await self._restorer.restore(generation, facts, on_conflict=on_conflict, dry_run=dry_run)
        moved = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, GenerationMovedError)]
        if moved:
            self._generations.forget(generation.namespace)
            live = await self._indexer.generation(generation.namespace)
            same = (live.model, live.dimension) == (generation.model, generation.dimension)
            again = [facts[at] if same else facts[at]._replace(vectors=None) for at in moved]
            for at, outcome in zip(
                moved,
                await self._restorer.restore(live, again, on_conflict=on_conflict, dry_run=dry_run),
                strict=True,
            ):
                outcomes[at] = outcome
        return outcomes

    def _counted(
        self, line: int, outcome: Restored | Exception, walk: ImportPass, tally: ImportTally, *, again: bool
    ) -> bool:
        if isinstance(outcome, Exception):
            known = outcome if isinstance(outcome, KnowledgeBaseError) else translated(outcome, "import")
            if isinstance(known, UnavailableError):
                raise known
            tally.fail(line, str(known) if known is not None else "the server refused to store it")
            return False
        if outcome.status == "conflict":
            tally.fail(line, f"the id {outcome.fact_id!r} is taken, by version {outcome.version}")
            return False
        if outcome.status == "duplicate" and walk.defers(line):
            return False
        if outcome.status == "duplicate" and outcome.stands and walk.on_conflict in {"overwrite", "newer"}:
            tally.fail(line, f"fact {outcome.fact_id!r} has this content, and stays as it is")
            return False
        is_written = outcome.is_written or (again and outcome.status == "same")
        tally.processed += 1
        tally.succeeded += int(is_written)
        tally.replaced += int(outcome.status == "replaced")
        tally.expired += int(outcome.status == "expired")
        tally.duplicates += int(not is_written and outcome.status != "expired")
        return is_written

    async def _embed(self, namespace: str, facts: Sequence[WholeFact]) -> None:
        if not facts:
            return
        try:
            generation = await self._indexer.generation(namespace)
            await self._indexer.index(generation, [fact.passage_set for fact in facts])
        except BaseException as error:
            # Stored, found by words, and recorded as pending: the background completes them.
            self._background.leave(namespace, [fact.fact_id for fact in facts])
            if not isinstance(error, UnavailableError):
                raise


def _foreseen(walk: ImportPass, namespace: str, fact: WholeFact, outcome: Restored | Exception) -> Restored | Exception:
    if walk.memory is None or isinstance(outcome, Exception):
        return outcome
    foreseen = walk.memory.outcome(namespace, fact, outcome, walk.on_conflict)
    if foreseen.is_written:
        walk.memory.note(namespace, fact)
    return foreseen


def _prepared(read: ReadFact, parts: FactParts | InvalidInputError) -> PreparedFact:
    if isinstance(parts, InvalidInputError):
        return PreparedFact(read.line, read.namespace, parts, None)
    model = read.model
    identity = (model.get("model"), model.get("dimension")) if isinstance(model, Mapping) else None
    dimension = identity[1] if identity is not None and isinstance(identity[1], int) else None
    return PreparedFact(read.line, read.namespace, read.fact.whole(parts, dimension), identity)

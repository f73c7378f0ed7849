"""What a ``KnowledgeBase`` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_base.admin.integrity import IntegrityCheck
from knowledge_base.answers.answerer import Answerer
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.facts.bulk import BulkWriter
from knowledge_base.facts.parts import PartMaker
from knowledge_base.facts.reader import FactReader
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.writer import FactWriter
from knowledge_base.index.analysis import Analyzer
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.passages import PassageSplitter
from knowledge_base.index.pending import PendingFacts
from knowledge_base.index.text_index import TextIndex
from knowledge_base.index.timeout_policy import TimeoutPolicy
from knowledge_base.index.vector_index import VectorIndex
from knowledge_base.readiness import Readiness
from knowledge_base.retrieval.candidates import CandidateFinder
from knowledge_base.retrieval.chunk_candidates import PassageRanking
from knowledge_base.retrieval.chunk_passages import ChunkPassages
from knowledge_base.retrieval.chunk_retriever import ChunkRetriever
from knowledge_base.retrieval.context_builder import ContextBuilder
from knowledge_base.retrieval.passage_reader import PassageReader
from knowledge_base.retrieval.searcher import Searcher
from knowledge_base.retrieval.tokens import TokenCounter
from knowledge_base.settings import Settings
from knowledge_base.statistics import Statistics
from knowledge_base.types import PoolStats

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

SPLITTING_THREADS = 1
SPLITTING_WAITING = 1_000
RANKING_THREADS = 2


class Collaborators:
    """Everything that is bound to an event loop.

    Args:
        settings: All settings.
        manager: The connections.
        embed_model: The caller's own embedding, or None.
        llm: The caller's own LLM, or None.
    """

    def __init__(
        self, settings: Settings, manager: AsyncRedisManager, embed_model: BaseEmbedding | None, llm: LLM | None
    ) -> None:
        limits = settings.limits
        analyzer = Analyzer()
        compiler = FilterCompiler(limits.filter_clauses)
        self.splitting = WorkloadThreads("splitting", threads=SPLITTING_THREADS, waiting=SPLITTING_WAITING)
        self.ranking = WorkloadThreads("ranking", threads=RANKING_THREADS, waiting=limits.waiting_searches)
        self.embedding = EmbeddingService(
            settings.embedding,
            timeout=settings.timeouts.embedding,
            breaker=settings.breaker,
            model=embed_model,
            manager=manager,
        )
        self.generations = Generations(manager)
        self.vectors = VectorIndex(
            manager,
            self.embedding,
            self.generations,
            timeout=settings.timeouts.llama_index,
            most_waiting=limits.index_waiting,
        )
        texts = TextIndex(manager, self.generations)
        self.repository = FactRepository(
            manager, self.splitting, keep_history=limits.history, lease=settings.indexing.lease
        )
        self.pending = PendingFacts(manager, settings.indexing)
        indexer = Indexer(
            manager,
            self.generations,
            self.embedding,
            self.vectors,
            self.pending,
            # The other half of the threads is for searches.
            inserts=max(1, limits.index_threads // 2),
            insert_timeout=settings.timeouts.llama_index,
        )
        self.background = BackgroundIndexer(
            manager, self.generations, self.embedding, indexer, self.pending, self.repository.sweep
        )
        self.reader = FactReader(self.repository, texts, self.generations, compiler)
        self.splitter = PassageSplitter(settings.chunking, self.splitting, analyzer)
        parts = PartMaker(self.splitter, self.embedding, self.splitting, settings.timeouts.document)
        self.writer = FactWriter(
            self.repository, parts, self.generations, indexer, self.background, settings.timeouts, limits
        )
        self.bulk = BulkWriter(
            self.writer,
            parts,
            self.repository,
            self.reader,
            indexer,
            self.background,
            self.generations,
            settings.timeouts,
            limits,
        )
        self.finder = CandidateFinder(
            self.generations,
            self.embedding,
            self.vectors,
            texts,
            TimeoutPolicy(manager),
            analyzer,
            compiler,
            query_terms=limits.query_terms,
            vector_share=settings.retrieval.vector_share,
        )
        self.searches = Admission("searches", limits.concurrent_searches, limits.waiting_searches)
        self.searcher = Searcher(
            manager,
            self.repository,
            PassageReader(analyzer),
            self.generations,
            self.finder,
            compiler,
            self.ranking,
            self.searches,
            settings.retrieval,
        )
        self.tokens = TokenCounter(self.ranking, model=settings.llm.model, llm=llm)
        self.chunks = ChunkRetriever(
            self.finder,
            self.searches,
            ChunkPassages(manager, self.repository),
            PassageRanking(analyzer, settings.retrieval.rrf_k),
            self.tokens,
            self.ranking,
            settings.retrieval,
        )
        self.contexts = ContextBuilder(self.chunks, self.tokens, self.ranking, wait=settings.timeouts.context)
        self.answerer = Answerer(
            settings.llm,
            self.contexts,
            self.tokens,
            timeout=settings.timeouts.llm,
            breaker=settings.breaker,
            llm=llm,
        )

        def pools() -> dict[str, PoolStats]:
            admissions = {
                "searches": self.searches,
                "stores": self.writer.admission,
                "jobs": self.bulk.admission,
            }
            used = {name: admission.stats() for name, admission in admissions.items()}
            threads = self.splitting.stats() | self.ranking.stats() | self.answerer.stats()
            return manager.stats() | self.embedding.stats() | threads | used

        self.statistics = Statistics(manager, self.repository, self.generations, self.embedding, self.answerer, pools)
        self.readiness = Readiness(manager, self.generations, self.embedding, texts, self.background, pools)
        self.integrity = IntegrityCheck(self.statistics, self.pending, self.background)

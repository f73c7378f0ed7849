"""What a ``KnowledgeBase`` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_base.admin.housekeeping.backup import BackupTest
from knowledge_base.admin.housekeeping.duplicates import DuplicateFinder
from knowledge_base.admin.housekeeping.namespace_copy import NamespaceCopies
from knowledge_base.admin.housekeeping.namespaces import Namespaces
from knowledge_base.admin.housekeeping.prune import Pruning
from knowledge_base.admin.housekeeping.whole_facts import WholeFacts
from knowledge_base.admin.integrity.integrity_check import IntegrityCheck
from knowledge_base.admin.jobs.jobs import Jobs
from knowledge_base.admin.jobs.record import JobRecords
from knowledge_base.admin.rebuild.index_rebuild import IndexRebuild
from knowledge_base.admin.transfer.fact_import import FactImport
from knowledge_base.admin.transfer.fact_pages import FactPages
from knowledge_base.admin.transfer.transfer import Transfer
from knowledge_base.answers.answerer import Answerer
from knowledge_base.connection.admission import Admission
from knowledge_base.connection.manager import AsyncRedisManager
from knowledge_base.connection.workload import WorkloadThreads
from knowledge_base.documents.chunker import DocumentChunker
from knowledge_base.documents.extraction import Extractor
from knowledge_base.documents.index_queue import IndexQueue
from knowledge_base.documents.ingest import Ingestion
from knowledge_base.documents.records import DocumentArchive
from knowledge_base.documents.repository import DocumentRepository
from knowledge_base.documents.service import Documents
from knowledge_base.documents.staging import DocumentStaging
from knowledge_base.documents.tree import FolderTree
from knowledge_base.documents.writer import DocumentWriter
from knowledge_base.embedding.embeddings import Embeddings
from knowledge_base.embedding.service import EmbeddingService
from knowledge_base.facts.bulk import BulkWriter
from knowledge_base.facts.parts import PartMaker
from knowledge_base.facts.reader import FactReader
from knowledge_base.facts.remake import FactRemaker
from knowledge_base.facts.repository import FactRepository
from knowledge_base.facts.restore import FactRestorer
from knowledge_base.facts.writer import FactWriter
from knowledge_base.index.background import BackgroundIndexer
from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.generations import Generations
from knowledge_base.index.index_size import IndexSize
from knowledge_base.index.indexer import Indexer
from knowledge_base.index.namespace_languages import NamespaceLanguages
from knowledge_base.index.passages import PassageSplitter
from knowledge_base.index.pending import PendingFacts
from knowledge_base.index.polyglot import Polyglot
from knowledge_base.index.retired import RetiredGenerations
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
from knowledge_base.retrieval.refinement import Refinement
from knowledge_base.retrieval.reranking.reranker import Reranker
from knowledge_base.retrieval.searcher import Searcher
from knowledge_base.retrieval.tokens import TokenCounter
from knowledge_base.settings import EmbeddingSettings, Settings
from knowledge_base.statistics import Statistics
from knowledge_base.types import PoolStats

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

SPLITTING_THREADS = 1
SPLITTING_WAITING = 1_000
RANKING_THREADS = 2


class Collaborators:
    """Everything that is bound to an event loop.

    Args:
        settings: All settings.
        manager: The connections.
        embed_model: The caller's own embedding, or None.
        next_embed_model: The caller's own embedding that the base is being moved to, or None.
        llm: The caller's own LLM, or None.
        reranker: The caller's own reranker, or None.
    """

    def __init__(
        self,
        settings: Settings,
        manager: AsyncRedisManager,
        embed_model: BaseEmbedding | None,
        next_embed_model: BaseEmbedding | None,
        llm: LLM | None,
        reranker: BaseNodePostprocessor | None,
    ) -> None:
        limits = settings.limits
        polyglot = Polyglot(settings.language)
        self.languages = NamespaceLanguages(manager, polyglot)
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
        upcoming: EmbeddingService | None = None
        if settings.next_embedding is not None or next_embed_model is not None:
            upcoming = EmbeddingService(
                settings.next_embedding or EmbeddingSettings(),
                timeout=settings.timeouts.embedding,
                breaker=settings.breaker,
                model=next_embed_model,
                manager=manager,
                name="next embedding",
            )
        self.embeddings = Embeddings(self.embedding, upcoming)
        chunking = settings.chunking
        self.generations = Generations(
            manager, f"{chunking.passage_tokens}/{chunking.overlap_tokens}/{settings.language}"
        )
        self.vectors = VectorIndex(
            manager,
            self.embedding,
            self.generations,
            timeout=settings.timeouts.llama_index,
            most_waiting=limits.index_waiting,
        )
        policy = TimeoutPolicy(manager)
        self.texts = texts = TextIndex(manager, self.generations, policy)
        self.repository = FactRepository(
            manager, self.splitting, keep_history=limits.history, lease=settings.indexing.lease
        )
        self.pending = PendingFacts(manager, settings.indexing)
        self.indexer = Indexer(
            manager,
            self.generations,
            self.embeddings,
            self.vectors,
            self.pending,
            # The other half of the threads is for searches.
            inserts=max(1, limits.index_threads // 2),
            insert_timeout=settings.timeouts.llama_index,
        )
        retired = RetiredGenerations(manager, self.generations)
        self.staging = DocumentStaging(manager, self.splitting)
        self.background = BackgroundIndexer(
            manager,
            self.generations,
            self.embeddings,
            self.indexer,
            self.pending,
            retired,
            self.repository.sweep,
            self.staging.collect,
        )
        self.reader = FactReader(self.repository, texts, self.generations, compiler)
        self.restorer = FactRestorer(
            manager, self.indexer, self.splitting, keep_history=limits.history, lease=settings.indexing.lease
        )
        self.splitter = PassageSplitter(settings.chunking, self.splitting, polyglot)
        self.parts = parts = PartMaker(
            self.splitter, self.embedding, self.splitting, self.languages, settings.timeouts.document
        )
        self.remaker = FactRemaker(manager, self.repository, parts, self.splitting, self.pending, self.background)
        self.writer = FactWriter(
            self.repository, parts, self.generations, self.indexer, self.background, settings.timeouts, limits
        )
        self.bulk = BulkWriter(
            self.writer,
            parts,
            self.repository,
            self.reader,
            self.indexer,
            self.background,
            self.generations,
            settings.timeouts,
            limits,
        )
        self.extractor = Extractor(
            file_seconds=settings.timeouts.file,
            extraction_seconds=settings.timeouts.document,
            max_bytes=limits.document_bytes,
            max_characters=limits.document_chars,
        )
        self.folders = FolderTree(file_seconds=settings.timeouts.file)
        document_repository = DocumentRepository(manager, self.splitting, lease=settings.indexing.lease)
        document_writer = DocumentWriter(
            document_repository,
            self.staging,
            DocumentChunker(settings.chunking, self.splitting, polyglot),
            self.embeddings,
            self.indexer,
            self.background,
            self.splitting,
            self.languages,
        )
        self.documents = Documents(
            self.extractor,
            document_writer,
            document_repository,
            self.staging,
            self.generations,
            self.indexer,
            self.splitting,
            self.bulk.admission,
            wait=settings.timeouts.add_document,
        )
        self.document_archive = DocumentArchive(manager, document_repository, document_writer, self.splitting, limits)
        self.ingestion = Ingestion(
            manager,
            self.extractor,
            self.folders,
            document_writer,
            document_repository,
            self.staging,
            self.documents,
            IndexQueue(document_writer, self.indexer),
            self.bulk.admission,
            wait=settings.timeouts.job,
        )
        self.finder = CandidateFinder(
            self.generations,
            self.embeddings,
            self.vectors,
            texts,
            IndexSize(manager),
            policy,
            polyglot,
            self.languages,
            compiler,
            query_terms=limits.query_terms,
            vector_share=settings.retrieval.vector_share,
        )
        self.searches = Admission("searches", limits.concurrent_searches, limits.waiting_searches)
        retrieval = settings.retrieval
        self.reranker = Reranker(
            retrieval.reranker,
            reranker,
            threads=retrieval.rerank_threads,
            waiting=limits.waiting_searches,
            timeout=settings.timeouts.rerank,
            breaker=settings.breaker,
        )
        chunk_passages = ChunkPassages(manager, self.repository)
        self.searcher = Searcher(
            manager,
            self.repository,
            PassageReader(polyglot, self.languages),
            self.generations,
            self.finder,
            compiler,
            self.ranking,
            self.searches,
            Refinement(manager, chunk_passages, self.reranker, self.ranking, retrieval),
            retrieval,
        )
        self.tokens = TokenCounter(self.ranking, model=settings.llm.model, llm=llm)
        self.chunks = ChunkRetriever(
            self.finder,
            self.searches,
            chunk_passages,
            PassageRanking(retrieval.vector_weight),
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
            threads = self.splitting.stats() | self.ranking.stats() | self.answerer.stats() | self.transfer.stats()
            return manager.stats() | self.embeddings.stats() | threads | used

        self.rebuild = IndexRebuild(
            manager,
            self.generations,
            self.embeddings,
            self.indexer,
            self.vectors,
            texts,
            self.remaker,
            self.document_archive,
            retired,
            self.languages,
            longest_search=max(settings.timeouts.search, settings.timeouts.retrieve, settings.timeouts.context),
        )
        self.statistics = Statistics(
            manager, self.repository, self.generations, self.embeddings, self.answerer, self.reranker, pools
        )
        self.readiness = Readiness(manager, self.generations, self.embeddings, texts, self.background, pools)
        waiting = settings.timeouts.job
        self.pruning = Pruning(manager, self.repository, texts, self.generations, self.bulk.admission, wait=waiting)
        self.duplicates = DuplicateFinder(
            manager, self.generations, texts, self.ranking, self.bulk.admission, wait=waiting
        )
        self.transfer = Transfer(
            manager,
            self.generations,
            FactPages(manager, self.generations, texts),
            FactImport(
                parts,
                self.restorer,
                self.indexer,
                self.background,
                self.generations,
                self.embeddings,
                limit=settings.timeouts.document,
            ),
            self.document_archive,
            self.bulk.admission,
            settings.timeouts,
            limits,
        )
        self.namespaces = Namespaces(manager, self.generations, self.bulk.admission, wait=waiting)
        self.backup_test = BackupTest(self.splitting, file_seconds=settings.timeouts.file)
        self.copies = NamespaceCopies(
            manager,
            self.generations,
            self.namespaces,
            WholeFacts(manager, parts, self.splitting),
            self.restorer,
            self.document_archive,
            self.repository,
            document_repository,
            self.bulk.admission,
            wait=waiting,
        )
        self.jobs = Jobs(
            JobRecords(manager, settings.jobs),
            places=limits.concurrent_jobs,
            waiting=limits.waiting_jobs,
            lease=settings.jobs.lease,
        )
        self.integrity = IntegrityCheck(
            manager,
            self.statistics,
            self.repository,
            self.generations,
            self.remaker,
            self.document_archive,
            self.indexer,
            self.pending,
            self.background,
        )

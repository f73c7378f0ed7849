"""What the ingestion of a real tree costs: files and passages a second against the bare model, and the second run.

``python -m tests.benchmarks ingest --files 500``; the tree is the documentation of Python as Debian packs it, fetched
with ``apt-get download`` into the user's cache folder, and PDF and DOCX files that are generated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import redis

from knowledge_base import EmbeddingSettings, KnowledgeBase, Settings
from knowledge_base.embedding.local_embedding import LocalEmbedding
from knowledge_base.embedding.local_model import LocalModel
from tests.support.documents import manual, markdown, paragraph
from tests.support.server import RedisServer

PACKAGE = "python3.11-doc"
FILES = 150
GENERATED = 5
BARE = 512
"""Passages that the bare model embeds before, and once more after the ingestion."""

BATCH = 128
LEAST_RATIO = 0.85
MOST_SECOND = 0.02
SLOW_MICROSECONDS = 10_000


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "knowledge-base-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def documentation() -> list[Path]:
    """The sources of Python's documentation, or none where the package cannot be had."""
    folder = cache_folder() / PACKAGE
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
            try:
                subprocess.run(["apt-get", "download", PACKAGE], cwd=scratch, check=True, capture_output=True)
                (package,) = Path(scratch).glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", str(package), "tree"], cwd=scratch, check=True)
            except (OSError, subprocess.CalledProcessError, ValueError):
                return []
            (Path(scratch) / "tree").rename(folder)
    return sorted(folder.rglob("*.rst.txt"))


def make_tree(root: Path, files: int) -> None:
    """Copies the documentation, or generates texts, and adds some PDF and DOCX files."""
    sources = documentation()[:files]
    for source in sources:
        target = root / source.parent.name / source.name.removesuffix(".txt")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if not sources:
        print(f"{PACKAGE} cannot be had here; the texts are generated")
        for number in range(files):
            lines = manual(parts=4 + number % 7, paragraphs=8)
            (root / f"{number}.md").write_text(markdown([*lines, paragraph(10_000 + number)]))
    for number in range(GENERATED):
        write_pdf(root / f"paper{number}.pdf", number)
        write_docx(root / f"letter{number}.docx", number)
    (root / "touched.md").write_text(markdown(manual(parts=30, paragraphs=12)))


def write_pdf(path: Path, number: int) -> None:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for page in range(10):
        pdf.add_page()
        for at in range(4):
            pdf.multi_cell(0, 6, paragraph(1_000_000 + number * 1_000 + page * 10 + at), new_x="LMARGIN", new_y="NEXT")
    pdf.output(str(path))


def write_docx(path: Path, number: int) -> None:
    from docx import Document

    document = Document()
    for section in range(10):
        document.add_heading(f"Section {section}", level=1)
        for at in range(5):
            document.add_paragraph(paragraph(2_000_000 + number * 1_000 + section * 10 + at))
    document.save(str(path))


def bare_rate(model: LocalModel, texts: Sequence[str], threads: int) -> float:
    """Passages a second of the bare model in as many threads as the service has."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for begin in range(0, len(texts), BATCH):
            some = texts[begin : begin + BATCH]
            list(pool.map(model.embed_passages, [some[start::threads] for start in range(threads)]))
        return len(texts) / (time.perf_counter() - began)


async def timed_ingest(kb: KnowledgeBase, root: Path) -> tuple[dict[str, Any], float]:
    began = time.perf_counter()
    result = await kb.ingest_path(root)
    return dict(result), time.perf_counter() - began


async def measure(url: str, root: Path, files: int) -> None:
    settings = Settings(redis_url=url, namespace="ingest")
    embedding = LocalEmbedding.load()
    threads = EmbeddingSettings().threads
    probe = redis.Redis.from_url(url)
    probe.config_set("slowlog-log-slower-than", SLOW_MICROSECONDS)
    async with KnowledgeBase(settings, embed_model=embedding) as kb:
        sample = root.parent / "sample"
        make_tree(sample, min(files, 40))
        await kb.ingest_path(sample, namespace="warm")
        services = await kb._services.start()
        await services.embedding.embed_passages(["warm"], "warm")
        texts = await passages_of_namespace(kb, "warm")
        before = bare_rate(embedding.local_model, texts, threads)
        probe.slowlog_reset()
        first, took = await timed_ingest(kb, root)
        entries: Any = probe.slowlog_get(128)
        slow = [entry["duration"] for entry in entries if entry["command"].startswith((b"EVALSHA", b"EVAL"))]
        after = bare_rate(embedding.local_model, texts, threads)
        bare = mean([before, after])
        rate = first["passages"] / took
        print(
            f"first run: {first['succeeded']} files ({len(first['failed'])} failed) and {first['passages']} passages "
            f"in {took:.1f} s: {first['succeeded'] / took:.1f} files/s, {rate:.1f} passages/s; bare model "
            f"{before:.1f} before and {after:.1f} after, ratio {rate / bare:.2f} ({LEAST_RATIO} at least)"
        )
        print(
            f"scripts above {SLOW_MICROSECONDS / 1000:.0f} ms: {len(slow)}, longest "
            f"{max(slow, default=0) / 1000:.1f} ms"
        )
        second, again = await timed_ingest(kb, root)
        print(
            f"second run: {second['duplicates']} unchanged in {again:.2f} s, {again / took:.2%} of the first "
            f"({MOST_SECOND:.0%} at most)"
        )
        touched = root / "touched.md"
        lines = touched.read_text().split("\n\n")
        lines[200] += " Somebody added a sentence."
        touched.write_text("\n\n".join(lines))
        third, took_third = await timed_ingest(kb, root)
        print(
            f"one paragraph of {third['passages']} passages touched: {third['embedded']} embedded, {took_third:.2f} s"
        )
        for failure in first["failed"][:5]:
            print("failed:", failure)
    probe.close()


async def passages_of_namespace(kb: KnowledgeBase, namespace: str) -> list[str]:
    services = await kb._services.start()
    found: list[str] = []
    for document in await kb.list_documents(namespace=namespace, limit=1_000):
        generation = await services.generations.current(namespace)
        assert generation is not None
        stored = (await services.documents._repository.read(namespace, [document["id"]]))[0]
        assert stored is not None
        texts = await services.documents._repository.passage_texts(generation, stored)
        found += [text for text in texts if text is not None]
    step = max(1, len(found) // BARE)
    return found[::step][:BARE]


def main() -> None:
    files = int(sys.argv[sys.argv.index("--files") + 1]) if "--files" in sys.argv else FILES
    folder = Path(tempfile.mkdtemp(prefix="kb-ingest-"))
    server = RedisServer()
    try:
        server.start()
        make_tree(folder / "tree", files)
        asyncio.run(measure(server.url, folder / "tree", files))
    finally:
        server.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

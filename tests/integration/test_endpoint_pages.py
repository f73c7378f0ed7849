"""The pages on embedding endpoints: their settings exist, and do against an endpoint what the pages say."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base import KnowledgeBase
from knowledge_base.embedding.prefixes import wanted_prefixes
from knowledge_base.settings import LLMSettings, Settings
from tests.support.openai_endpoint import OpenAIEndpoint

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
PAGES = ["openai", "ollama", "vllm", "chat"]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\bKB_[A-Z_]+\b")
ROW = re.compile(r"^\| `(?P<model>[^`]+)` \| (?P<dimension>\d+)[^|]* \|(?P<rest>.*)\|$", re.MULTILINE)


def text_of(page: str) -> str:
    return (HOW_TO / f"{page}.md").read_text(encoding="utf-8")


def exports(page: str) -> list[dict[str, str]]:
    """Returns the variables that each console block of a page sets."""
    blocks = []
    for block in CONSOLE.findall(text_of(page)):
        words = [shlex.split(line[2:])[1:] for line in block.splitlines() if line.startswith("$ export ")]
        blocks.append(dict(word.split("=", 1) for line in words for word in line))
    return [block for block in blocks if block]


BLOCKS = [(page, block) for page in PAGES for block in exports(page)]
EMBEDDING = [(page, block) for page, block in BLOCKS if "KB_EMBEDDING__PROVIDER" in block]
ROWS = [(page, row) for page in PAGES for row in ROW.finditer(text_of(page))]


@pytest.fixture(scope="module")
def reference() -> str:
    """The page that lists every setting, made from the code."""
    written: str = runpy.run_path(str(ROOT / "docs" / "generate_settings.py"))["page"]()
    return written


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_is_named_exists(page: str, reference: str):
    named = {name for name in VARIABLE.findall(text_of(page)) if not name.endswith("__")}

    assert named - set(VARIABLE.findall(reference)) == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str, reference: str):
    sections = {name for name, field in Settings.model_fields.items() if hasattr(field.annotation, "model_fields")}
    pattern = rf"`((?:{'|'.join(sections)})\.\w+)`"

    named = set(re.findall(pattern, text_of(page)))

    assert {name for name in named if f"`{name}`" not in reference} == set()


@pytest.mark.parametrize("page", PAGES)
def test_defaults_in_the_tables_are_the_defaults(page: str):
    settings = Settings()

    for name, written in re.findall(r"^\| `(\w+\.\w+)` \| `KB_\w+` \| ([\d ._]+) \|", text_of(page), re.MULTILINE):
        part, field = name.split(".")
        assert float(written.replace(" ", "")) == getattr(getattr(settings, part), field), name


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_settings_of_the_pages_are_accepted(page: str, block: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for name, value in block.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    for name, value in block.items():
        found = settings
        for part in name.removeprefix("KB_").lower().split("__"):
            found = getattr(found, part)
        assert str(found).strip("*") in (value, ""), f"{page}: {name}"


@pytest.mark.parametrize(("page", "block"), EMBEDDING)
async def test_settings_of_the_pages_store_and_find(
    page: str,
    block: dict[str, str],
    endpoint: OpenAIEndpoint,
    redis_url: str,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
):
    endpoint.size = int(block.get("KB_EMBEDDING__DIMENSION", "1536"))
    for name, value in {**block, "KB_EMBEDDING__BASE_URL": endpoint.base_url, "KB_REDIS_URL": redis_url}.items():
        monkeypatch.setenv(name, value.replace("…", "key"))
    async with KnowledgeBase(Settings(namespace=namespace)) as kb:
        stored = await kb.store_fact("The library opens at eight.")
        found = await kb.search("When does it open?", mode="vector")

    query, passage = wanted_prefixes(block["KB_EMBEDDING__MODEL"])
    assert stored["indexed"] is True
    assert found["hits"][0]["content"] == "The library opens at eight."
    assert f"{passage}The library opens at eight." in endpoint.counters.asked
    assert f"{query}When does it open?" in endpoint.counters.asked
    keys = (
        {f"Bearer {block['KB_EMBEDDING__API_KEY'].replace('…', 'key')}"} if "KB_EMBEDDING__API_KEY" in block else set()
    )
    assert keys <= endpoint.counters.authorizations


@pytest.mark.parametrize(("page", "row"), ROWS, ids=[f"{page}-{row['model']}" for page, row in ROWS])
def test_prefixes_in_the_tables_are_those_that_are_used(page: str, row: re.Match[str]):
    known = wanted_prefixes(row["model"])
    cells = [cell.strip() for cell in row["rest"].split("|")]

    if page == "vllm":
        assert [cell.strip("`") for cell in cells] == list(known)
    elif page == "ollama":
        assert any(known) == (cells[-1] == "known")
    else:
        assert not any(known)


@pytest.mark.parametrize("page", PAGES[:-1])
async def test_code_of_the_pages_does_what_their_variables_do(page: str, monkeypatch: pytest.MonkeyPatch):
    [code] = PYTHON.findall(text_of(page))
    first = next(block for one, block in EMBEDDING if one == page)
    for name, value in first.items():
        monkeypatch.setenv(name, value)
    from_environment = Settings().embedding
    for name in first:
        monkeypatch.delenv(name)

    made: dict[str, Settings] = {}
    exec(compile(code, f"{page}.md", "exec"), made)

    names = ("provider", "model", "base_url", "query_prefix", "passage_prefix")
    assert {name: getattr(made["settings"].embedding, name) for name in names} == {
        name: getattr(from_environment, name) for name in names
    }


async def test_code_of_the_chat_page_runs_and_the_context_looks_as_it_says(
    endpoint: OpenAIEndpoint, settings: Settings, local_embedding: BaseEmbedding, capsys: pytest.CaptureFixture[str]
):
    asks = settings.model_copy(update={"llm": LLMSettings(base_url=endpoint.base_url, model="test-chat")})
    first, *others = PYTHON.findall(text_of("chat"))
    async with KnowledgeBase(asks, embed_model=local_embedding) as kb:
        names: dict[str, Any] = {"kb": kb}
        await run(first, names)
        found = names["context"]["text"]
        for block in others:
            await run(block, names)

    assert f"```\n{found}\n```" in text_of("chat")
    assert "[1] Handbook, Refunds" in capsys.readouterr().out
    assert names["sources"] == ["Handbook, Refunds"]


async def run(code: str, names: dict[str, Any]) -> None:
    """Runs a snippet of a page, which may await."""
    made = eval(compile(code, "chat.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if made is not None:
        await made


def test_an_empty_prefix_takes_a_known_one_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KB_EMBEDDING__QUERY_PREFIX", "")

    assert Settings().embedding.query_prefix == ""


def test_pages_are_linked():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")

    assert [page for page in PAGES if f"(how-to/{page}.md)" not in index] == []
    assert os.path.exists(HOW_TO / "chat.md")

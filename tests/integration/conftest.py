"""Fixtures of integration tests: the embedded server's directory and users, and bases that ask the fake endpoint."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.connection.embedded_server import EmbeddedServer
from knowledge_base.heavy_imports import import_heavy
from knowledge_base.settings import EmbeddingSettings, Settings
from tests.support.embedded import USER, WITHIN, NewUser, OpenServer, User, processes_of
from tests.support.leaks import Footprint
from tests.support.polling import PAUSE
from tests.support.remote import KEY, MODEL, OpenRemote

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.control import Control
    from tests.support.openai_endpoint import OpenAIEndpoint


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path that does not exist; fails the test when its server outlives the users."""
    base = Path(tempfile.mkdtemp(prefix="kb-")).resolve()
    yield base / "data"
    ends = time.monotonic() + WITHIN
    while (left := processes_of(base)) and time.monotonic() < ends:
        time.sleep(PAUSE)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(base)
    assert not left


@pytest.fixture
def new_embedded(data_dir: Path) -> Iterator[OpenServer]:
    """Makes objects of this process that are closed in the end."""
    made: list[EmbeddedServer] = []

    def make(folder: Path = data_dir, **options: float) -> EmbeddedServer:
        made.append(EmbeddedServer(folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def new_user(data_dir: Path) -> Iterator[NewUser]:
    users: list[User] = []

    def make(program: str = USER) -> User:
        users.append(User(data_dir, program))
        return users[-1]

    yield make
    for user in users:
        user.kill()


@pytest.fixture
async def open_remote(settings: Settings, endpoint: OpenAIEndpoint, control: Control) -> AsyncIterator[OpenRemote]:
    """Makes knowledge bases that ask the fake endpoint, and closes them; nothing of them is left then.

    The first argument replaces embedding settings, keyword arguments all others.
    """
    from knowledge_base import KnowledgeBase

    # Slow to import, which tests with short timeouts must not wait for.
    for module in ("knowledge_base.embedding.endpoint_embedding", "knowledge_base.index.passage_store"):
        import_heavy(module)
    before = Footprint.taken(control)
    opened: list[KnowledgeBase] = []

    def open_one(embedding: Mapping[str, Any] | None = None, **changes: Any) -> KnowledgeBase:
        usual = {"base_url": endpoint.base_url, "model": MODEL, "api_key": KEY, "dimension": endpoint.size}
        changes["embedding"] = EmbeddingSettings(provider="openai", **{**usual, **(embedding or {})})
        opened.append(KnowledgeBase(settings.model_copy(update=changes)))
        return opened[-1]

    yield open_one
    endpoint.become("well")
    for one in opened:
        await one.close()
    await before.assert_regained(control)

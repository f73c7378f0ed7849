"""Fixtures of the embedded server's tests: its directory and its users."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_base.connection.embedded_server import EmbeddedServer
from tests.support.embedded import USER, WITHIN, NewUser, OpenServer, User, processes_of
from tests.support.polling import PAUSE


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

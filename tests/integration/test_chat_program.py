"""The chat example as a program: it runs offline as it is, and a crash leaves its transcripts whole."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import EXAMPLE, load_example, transcript
from tests.support.server import free_port

if TYPE_CHECKING:
    from tests.support.openai_endpoint import OpenAIEndpoint

APPEND = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import chat_workflow as example
path = Path(sys.argv[2])
"""
DIE_BEFORE_THE_MOVE = """
sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
example.append_atomically(path, "new\\n")
"""
APPEND_FOREVER = """
print("begins", flush=True)
for number in range(1_000_000):
    example.append_atomically(path, f"{number:06} {'x' * 200_000} {number:06}\\n")
"""


def test_crash_before_the_move_leaves_the_old_transcript(tmp_path: Path):
    example = load_example()
    path = tmp_path / "ann.jsonl"
    example.append_atomically(path, "old\n")

    done = subprocess.run(
        [sys.executable, "-c", APPEND + DIE_BEFORE_THE_MOVE, str(EXAMPLE.parent), str(path)], timeout=60
    )

    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old\n"
    example.append_atomically(path, "new\n")
    assert path.read_text() == "old\nnew\n"


@pytest.mark.parametrize("after", [0.0, 0.004, 0.013, 0.031, 0.07])
def test_killed_at_any_moment_the_transcript_has_whole_turns(after: float, tmp_path: Path):
    path = tmp_path / "ann.jsonl"
    command = [sys.executable, "-c", APPEND + APPEND_FOREVER, str(EXAMPLE.parent), str(path)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(after)
        writer.kill()

    written = path.read_text() if path.exists() else ""
    assert written == "".join(f"{n:06} {'x' * 200_000} {n:06}\n" for n in range(written.count("\n")))


async def run(*arguments: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        *arguments,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, complaints = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


async def test_runs_offline_as_it_is(data_dir: Path, tmp_path: Path):
    printed = await run(str(tmp_path), KB_DATA_DIR=str(data_dir))

    assert printed.splitlines() == [
        "> When is a refund paid?",
        "Refunds are paid within fourteen days, in the way that you paid. [1]",
        "  [1] Handbook, Refunds",
        "> And what about gift cards?",
        "Gift cards can't be refunded, but you may pass them on. [1]",
        "  [1] Handbook, Gift cards",
        "> Is the shop open on Sundays?",
        "The shop is closed on Sundays and on public holidays. [1]",
        "  [1] Handbook, Opening hours",
        f"Transcripts: {tmp_path}",
    ]
    [written] = os.listdir(tmp_path)
    assert len(transcript(tmp_path / written)) == 6


async def test_runs_with_a_language_model(redis_url: str, namespace: str, tmp_path: Path, endpoint: OpenAIEndpoint):
    printed = await run(
        str(tmp_path),
        KB_REDIS_URL=redis_url,
        KB_NAMESPACE=namespace,
        KB_LLM__BASE_URL=endpoint.base_url,
        KB_LLM__MODEL="test-chat",
        KB_LLM__API_KEY="sesame",
    )

    assert endpoint.counters.chats == 3
    assert endpoint.counters.authorizations == {"Bearer sesame"}
    assert "  [1] Handbook, Refunds" in printed


async def test_runs_to_its_end_without_redis(tmp_path: Path):
    printed = await run(str(tmp_path), KB_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")

    assert "The handbook is not stored" in printed
    assert "> Is the shop open on Sundays?" in printed
    assert "(without context" in printed


def test_goes_on_with_what_is_typed_on_a_terminal(redis_url: str, namespace: str, tmp_path: Path):
    ours, terminal = pty.openpty()
    environment = {**os.environ, "KB_REDIS_URL": redis_url, "KB_NAMESPACE": namespace}
    command = [sys.executable, str(EXAMPLE), str(tmp_path)]

    with subprocess.Popen(command, env=environment, stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.write(ours, b"\nWhen do parcels leave?\n\x04")
        printed, _ = process.communicate(timeout=120)

    os.close(terminal)
    os.close(ours)
    assert process.returncode == 0
    assert "> When do parcels leave?\nParcels leave on the day of the order" in printed
